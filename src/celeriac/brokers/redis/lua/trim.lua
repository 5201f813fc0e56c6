-- Drops dead letters that are too old or too many, a bounded number at a time.
--
-- KEYS  1 dead, 2 dead:records, 3 dead:counts
-- ARGV  1 seconds to keep them, 2 how many to keep, 3 most to drop now
-- Returns how many were dropped.

local call = redis.call
local bound = tonumber(ARGV[3])
local surplus = math.min(call('ZCARD', KEYS[1]) - tonumber(ARGV[2]), bound)
local victims = surplus > 0 and call('ZRANGE', KEYS[1], 0, surplus - 1) or {}
if surplus <= 0 then
  local time = call('TIME')
  local limit = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 - tonumber(ARGV[1]))
  victims = call('ZRANGEBYSCORE', KEYS[1], '-inf', limit, 'LIMIT', 0, bound)
end
for i = 1, #victims do
  call('ZREM', KEYS[1], victims[i])
  call('HDEL', KEYS[2], victims[i])
  local queue = string.sub(victims[i], 38)
  if call('HINCRBY', KEYS[3], queue, -1) <= 0 then call('HDEL', KEYS[3], queue) end
end
return #victims
