-- Puts messages in the place of dead letters: each letter goes, its message is published and its change of the ledger is
-- made, or nothing happens to it.
--
-- KEYS  1 dead, 2 dead:records, 3 dead:counts, 4 .. 3+l ready lists, then the keys of changes
-- ARGV  1 l, then for each letter: member, number of the list in KEYS, the text, number of the change's key in KEYS
--       (0: none), and the change's five arguments (ledger.lua)
-- Returns for each letter of which nothing happened: its number, from 0; 1 when it was not there, 0 when its change was
--       not allowed; and what stands under that key.

local l = tonumber(ARGV[1])
local commands = { 'ZCARD', 'HLEN', 'HLEN' }
for i = 4, #KEYS do commands[i] = i <= 3 + l and 'LLEN' or 'STRLEN' end
local bad = wrong_type(KEYS, commands)
if bad then return bad end
local stayed = {}
local function stays(i, gone, there)
  local n = #stayed
  stayed[n + 1], stayed[n + 2], stayed[n + 3] = (i - 2) / 9, gone, there
end
for i = 2, #ARGV, 9 do
  local member, key = ARGV[i], KEYS[tonumber(ARGV[i + 3])]
  if not call('ZSCORE', KEYS[1], member) then
    stays(i, 1, false)
  elseif key and not ledger_allows(key, i + 4) then
    stays(i, 0, call('GET', key))
  else
    forget(member)
    call('LPUSH', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2])
    if key then ledger_make(key, i + 4) end
  end
end
return stayed
