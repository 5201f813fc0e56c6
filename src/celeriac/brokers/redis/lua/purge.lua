-- Drops everything of one queue that waits. What it was is kept for a while, to be searched for locks (purged.lua).
--
-- KEYS  1 schedule, 2 .. 1+l ready lists, then for each of them the key that what it holds is moved to
-- ARGV  1 milliseconds to keep what was dropped
-- Returns how many messages that were.

local dropped, kinds = 0, #KEYS / 2
for i = 1, kinds do
  local length = redis.pcall(i == 1 and 'ZCARD' or 'LLEN', KEYS[i])
  if type(length) == 'table' then
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
  dropped = dropped + length
end
for i = 1, kinds do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[kinds + i])
    redis.call('PEXPIRE', KEYS[kinds + i], ARGV[1])
  end
end
return dropped
