-- Puts one message on a ready list and makes changes of the ledger: all of it, or nothing when one is not allowed.
--
-- KEYS  1 ready list, then the key of each change
-- ARGV  1 text, then for each change five arguments (ledger.lua)
-- Returns nothing when it is published, else what stands under each key.

local length = redis.pcall('LLEN', KEYS[1])
if type(length) == 'table' then
  return redis.error_reply('WRONGTYPE the key "' .. KEYS[1] .. '" is of another type')
end
local allowed = true
for i = 2, #KEYS do allowed = ledger_allows(KEYS[i], 5 * i - 8) and allowed end
if not allowed then
  local there = {}
  for i = 2, #KEYS do there[i - 1] = redis.call('GET', KEYS[i]) end
  return there
end
redis.call('LPUSH', KEYS[1], ARGV[1])
for i = 2, #KEYS do ledger_make(KEYS[i], 5 * i - 8) end
return false
