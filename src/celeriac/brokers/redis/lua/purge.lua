-- Drops everything of one queue that waits.
--
-- KEYS  1 schedule, 2 .. ready lists
-- Returns how many messages that were.

local dropped = 0
for i = 1, #KEYS do
  local length = redis.pcall(i == 1 and 'ZCARD' or 'LLEN', KEYS[i])
  if type(length) == 'table' then
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
  dropped = dropped + length
end
redis.call('UNLINK', unpack(KEYS))
return dropped
