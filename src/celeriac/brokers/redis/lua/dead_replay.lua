-- Puts messages in the place of dead letters: each letter goes and its message is published, or nothing happens to it.
--
-- KEYS  1 dead, 2 dead:records, 3 dead:counts, 4 .. ready lists
-- ARGV  for each letter: member, number of the list in KEYS, the text
-- Returns the numbers of the letters that were not there, from 0; nothing is published for those.

local commands = { 'ZCARD', 'HLEN', 'HLEN' }
for i = 4, #KEYS do commands[i] = 'LLEN' end
local bad = wrong_type(KEYS, commands)
if bad then return bad end
local gone = {}
for i = 1, #ARGV, 3 do
  if forget(ARGV[i]) then
    redis.call('LPUSH', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2])
  else
    gone[#gone + 1] = (i - 1) / 3
  end
end
return gone
