-- Opens chords, before their members are sent. What was joined or done under their ids is forgotten,
-- but not when the same was opened before and goes on.
--
-- KEYS  1 celeriac:chords, 2 unacked_index, then seven keys for each chord (chord.lua)
-- ARGV  1 to 4 as in chord.lua,
--       then for each chord: id, size, milliseconds to keep it ("" for ever), body, shape ("" none)

local tools = chord_tools(KEYS[1], KEYS[2], ARGV, 1)
local chords = {}
for a = 5, #ARGV, 5 do
  local chord = tools.read(3 + 7 * #chords, ARGV[a])
  local bad = tools.error(chord)
  if bad then return bad end
  chords[#chords + 1] = chord
end
for i = 1, #chords do
  local a = 5 * i
  tools.open(chords[i], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4])
end
return 1
