-- Adds members to chords, each once, and takes the token of those that are complete.
--
-- KEYS  1 celeriac:chords, 2 unacked_index, then seven keys for each of c chords (chord.lua)
-- ARGV  1 to 4 as in chord.lua, 5 token, 6 c,
--       then for each chord: id, milliseconds to keep it (""), body ("" not known),
--       then for each member: number of its chord from 0, "<id>:<place>", value, members that it adds, "1" = with body
-- Returns the numbers of the chords that are complete and whose token is the given one.

local tools = chord_tools(KEYS[1], KEYS[2], ARGV, 1, true)
local token, c = ARGV[5], tonumber(ARGV[6])
local chords = {}
for k = 0, c - 1 do
  local chord = tools.read(3 + 7 * k, ARGV[7 + 3 * k])
  local bad = tools.error(chord)
  if bad then return bad end
  chord.members, chord.values, chord.grows = {}, {}, {}
  chords[k] = chord
end
for a = 7 + 3 * c, #ARGV, 5 do
  local chord = chords[tonumber(ARGV[a])]
  local m = #chord.members + 1
  chord.members[m], chord.values[m], chord.grows[m] = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3])
  if ARGV[a + 4] == '1' then chord.bodied = true end
end
local complete = {}
for k = 0, c - 1 do
  local chord, life, body = chords[k], ARGV[8 + 3 * k], ARGV[9 + 3 * k]
  if tools.join(chord, chord.members, chord.values, chord.grows, chord.bodied, body, life)
    and tools.take(chord, token) then
    complete[#complete + 1] = k
  end
end
return complete
