-- Forgets dead letters.
--
-- KEYS  1 dead, 2 dead:records, 3 dead:counts
-- ARGV  members
-- Returns how many there were.

local bad = wrong_type(KEYS, { 'ZCARD', 'HLEN', 'HLEN' })
if bad then return bad end
local dropped = 0
for i = 1, #ARGV do
  if forget(ARGV[i]) then dropped = dropped + 1 end
end
return dropped
