-- Makes changes of the ledger, one after the other.
--
-- KEYS  the key of each change
-- ARGV  for each change five arguments (ledger.lua)
-- Returns for each change 1 when it was made, else 0.

local made = {}
for i = 1, #KEYS do
  local at = 5 * i - 4
  if ledger_allows(KEYS[i], at) then
    ledger_make(KEYS[i], at)
    made[i] = 1
  else
    made[i] = 0
  end
end
return made
