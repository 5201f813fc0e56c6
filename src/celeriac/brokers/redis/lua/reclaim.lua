-- Finds again what a claim took whose answer never arrived, and renews the leases.
--
-- KEYS  1 unacked, 2 unacked_index
-- ARGV  1 seconds by which the lease is longer than the usual one, 2 .. n+1 the tokens that the claim may have used
-- Returns the unacked entries, false where there is none.

local time = redis.call('TIME')
local score = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1]))
local answer = {}
for i = 2, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry and redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('ZADD', KEYS[2], 'XX', score, ARGV[i])
    answer[i - 1] = entry
  else
    answer[i - 1] = false
  end
end
return answer
