-- Reads a complete chord for the one who holds its token, whose time starts anew.
--
-- KEYS  1 celeriac:chords, 2 unacked_index, then seven keys of the chord (chord.lua)
-- ARGV  1 to 4 as in chord.lua, 5 token, 6 id
-- Returns { values by place, body, shape }, or nothing.

local tools = chord_tools(KEYS[1], KEYS[2], ARGV, 1, true)
local chord = tools.read(3, ARGV[6])
local bad = tools.error(chord)
if bad then return bad end
if not (tools.held(chord, ARGV[5]) and tools.complete(chord)) then return false end
tools.take(chord, ARGV[5])
local key = chord.key
local values = {}
if chord.kind ~= 'none' then values = redis.call(chord.kind == 'list' and 'LRANGE' or 'ZRANGE', key.values, 0, -1) end
return { values, redis.call('GET', key.body) or '', redis.call('GET', key.shape) or '' }
