-- Ends a chord whose body was sent, if the token still holds it: also when its time is over, but nobody else took it.
--
-- KEYS  1 celeriac:chords, 2 unacked_index, then seven keys of the chord (chord.lua)
-- ARGV  1 to 4 as in chord.lua, 5 token, 6 id
-- Returns 1, or 0 when the token was lost.

local tools = chord_tools(KEYS[1], KEYS[2], ARGV, 1, true)
local chord = tools.read(3, ARGV[6])
local bad = tools.error(chord)
if bad then return bad end
if not tools.held(chord, ARGV[5]) then return 0 end
tools.close(chord)
return 1
