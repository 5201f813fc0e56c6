-- Takes the tokens of chords that are complete and that nobody is about to close; forgets those that are gone or done.
--
-- KEYS  1 celeriac:chords, 2 unacked_index, then seven keys for each chord (chord.lua)
-- ARGV  1 to 4 as in chord.lua, 5 token,
--       6 most chords to take, then the ids
-- Returns the numbers, from 0, of those that were taken. Those with a key of a wrong type are left alone.

local call = redis.call
local tools = chord_tools(KEYS[1], KEYS[2], ARGV, 1, true)
local token, most = ARGV[5], tonumber(ARGV[6])

-- Celery's workers renew all but our key: it lives as long as the size.
local function prolong(chord)
  local left = call('PTTL', chord.key.size)
  if left == -1 then
    call('PERSIST', chord.key.body)
  elseif left > call('PTTL', chord.key.body) then
    call('PEXPIRE', chord.key.body, left)
  end
end

local taken = {}
for k = 0, #ARGV - 7 do
  local chord = tools.read(3 + 7 * k, ARGV[7 + k])
  if not chord.wrong then
    if chord.token == 'done' or not chord.opened or not (chord.size or chord.kind ~= 'none') then
      tools.forget(chord)
    elseif not tools.complete(chord) then
      if chord.size then prolong(chord) end
    elseif #taken == most then
      tools.look(chord, 0)
    elseif tools.take(chord, token) then
      taken[#taken + 1] = k
    else
      tools.look(chord, math.max(call('PTTL', chord.key.token), 0) / 1000) -- when its holder's time is over
    end
  end
end
return taken
