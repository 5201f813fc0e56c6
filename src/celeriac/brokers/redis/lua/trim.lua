-- Drops dead letters that are too old, too many or too large, the oldest first, a bounded number at a time.
--
-- KEYS  1 dead, 2 dead:records, 3 dead:counts
-- ARGV  1 seconds to keep them, 2 how many to keep, 3 bytes to keep, 4 most to drop now
-- Returns { how many were dropped, how many of these were not too old }.

local bad = wrong_type(KEYS, { 'ZCARD', 'HLEN', 'HLEN' })
if bad then return bad end
local time = redis.call('TIME')
local limit = tonumber(time[1]) + tonumber(time[2]) / 1000000 - tonumber(ARGV[1])
local most, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[4]) - 1, 'WITHSCORES')
local left = redis.call('ZCARD', KEYS[1])
local dropped, surplus = 0, 0
for i = 1, #oldest, 2 do
  local old = tonumber(oldest[i + 1]) <= limit
  if not old then
    if left <= most and tonumber(redis.call('HGET', KEYS[3], '') or 0) <= most_bytes then break end
    surplus = surplus + 1
  end
  forget(oldest[i])
  dropped, left = dropped + 1, left - 1
end
return { dropped, surplus }
