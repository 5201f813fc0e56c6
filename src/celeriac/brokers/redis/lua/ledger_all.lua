-- Makes changes of the ledger: all of them, or nothing when one is not allowed.
--
-- KEYS  the key of each change
-- ARGV  for each change five arguments (ledger.lua)
-- Returns nothing when they are made, else what stands under each key.

local allowed = true
for i = 1, #KEYS do allowed = ledger_allows(KEYS[i], 5 * i - 4) and allowed end
if not allowed then
  local there = {}
  for i = 1, #KEYS do there[i] = redis.call('GET', KEYS[i]) end
  return there
end
for i = 1, #KEYS do ledger_make(KEYS[i], 5 * i - 4) end
return false
