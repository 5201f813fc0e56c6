-- Puts messages on a ready list, each together with a key of the ledger, but for those whose key is there already.
--
-- KEYS  1 ready list, then the key of each message
-- ARGV  1 milliseconds to keep the keys, then the text of each message
-- Returns for each key 1 when its message is published, else 0

local length = redis.pcall('LLEN', KEYS[1])
if type(length) == 'table' then
  return redis.error_reply('WRONGTYPE the key "' .. KEYS[1] .. '" is of another type')
end
local made = {}
for i = 2, #KEYS do
  if redis.call('SET', KEYS[i], '1', 'NX', 'PX', ARGV[1]) then
    redis.call('LPUSH', KEYS[1], ARGV[i])
    made[i - 1] = 1
  else
    made[i - 1] = 0
  end
end
return made
