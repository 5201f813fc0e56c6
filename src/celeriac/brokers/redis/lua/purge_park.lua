-- Drops everything of one queue that is parked behind limits. What it was is kept for a while, to be searched for locks
-- (purged.lua).
--
-- KEYS  1 celeriac:parks, then n parks, then for each of them the key that what it holds is moved to
-- ARGV  1 milliseconds to keep what was dropped, then the n fields of the parks in celeriac:parks
-- Returns how many messages that were.

local dropped, n = 0, #ARGV - 1
for i = 2, 1 + n do
  local length = redis.call('LLEN', KEYS[i])
  dropped = dropped + length
  if length > 0 then
    redis.call('RENAME', KEYS[i], KEYS[n + i])
    redis.call('PEXPIRE', KEYS[n + i], ARGV[1])
  end
  redis.call('HDEL', KEYS[1], ARGV[i])
end
return dropped
