-- Renews leases.
--
-- KEYS  1 unacked_index
-- ARGV  1 seconds by which the lease is longer than the usual one, 2 .. n+1 tokens
-- Returns the numbers of those that are gone.

local time = redis.call('TIME')
local score = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1]))
local lost = {}
for i = 2, #ARGV, 2000 do
  local last = math.min(i + 1999, #ARGV)
  local found = redis.call('ZMSCORE', KEYS[1], unpack(ARGV, i, last))
  local held = {}
  for j = i, last do
    if found[j - i + 1] then
      held[#held + 1] = score
      held[#held + 1] = ARGV[j]
    else
      lost[#lost + 1] = j - 1
    end
  end
  if #held > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(held)) end
end
return lost
