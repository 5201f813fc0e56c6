-- Ends deliveries, each with everything that follows from it, or not at all: a delivery whose token is gone changes
-- nothing. Removals come before writes, but for deliveries with parts: those may turn out not to end yet.
--
-- KEYS  1 unacked, 2 unacked_index, 3 dead, 4 dead:records, 5 dead:counts, 6 schedules,
--       then keys of results and locks, then l ready lists, then z schedules,
--       then, where something stays leased or concerns chords, celeriac:chords and seven keys for each of c (chord.lua)
-- ARGV  1 l, 2 z, 3 .. 2+z the queues of the schedules, 3+z mode: "strict" = a wrong type is an error and changes
--       nothing, "each" = it concerns only the deliveries that need that key, 4+z "1" = there are dead letters,
--       5+z c, "" = nothing stays leased or concerns chords; if not "", then
--         four arguments as in chord.lua, and for each chord: id, milliseconds to keep it (""), body ("" not known),
--       then for each delivery: token, number of actions, and for each action: kind, number of the key, a, b:
--         H stands in front when it stays leased or concerns chords; in place of the key "end" or "stay", a "1" = it has
--           parts; the token may be "" then
--         C closes a chord that token a must hold
--         O opens a chord of size a for b milliseconds, followed by o with its body a and shape b
--         S result a for b milliseconds ("" for ever) and its announcement
--         s the same, unless a SUCCESS is stored
--         U drops the lock when it holds a or b
--         L text a to the back of a ready list
--         J part: member a ("<id>:<place>") with value b joins a chord, which came with its body; j without body;
--           followed by G when it adds a members. What stands behind the parts waits for what becomes of the chords.
--         R text a to the front of a ready list; those of one call keep their order
--         Z member b at a into a schedule
--         D dead letter a ("<uuid>:<queue>") with record b, in place of the key the time of the death
--       For kinds C, O, o, J, j, G the number is that of the chord, from 0.
-- Returns { number of the delivery, "F" fenced, "W" wrong type or "C" all is written but its end, for its parts completed
--       chords, whose tokens it holds now, ... }: only those that were not done.

local call, pcall, KEYS, ARGV = redis.call, redis.pcall, KEYS, ARGV
local unacked, index, dead, records, counts, schedules = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local l, z = tonumber(ARGV[1]), tonumber(ARGV[2])
local strict, deaths, c = ARGV[3 + z] == 'strict', ARGV[4 + z] == '1', tonumber(ARGV[5 + z])
local first_schedule = #KEYS - z + 1 - (c and 1 + 7 * c or 0)
local first_list, last_schedule = first_schedule - l, first_schedule + z - 1
local at = 6 + z

-- 1. Types, by reads that fail on a wrong one; of the index by its own removal, which comes first.
local wrong, any_wrong = {}, false
local function check(command, i)
  local reply = pcall(command, KEYS[i])
  if type(reply) == 'table' and reply.err then
    wrong[i], any_wrong = true, true
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
end
local bad = check('HLEN', 1)
if not bad and deaths then bad = check('ZCARD', 3) or check('HLEN', 4) or check('HLEN', 5) end
if not bad and z > 0 then bad = check('SCARD', 6) end
if bad then return bad end
for i = first_list, first_schedule - 1 do bad = check('LLEN', i) or bad end
for i = first_schedule, last_schedule do bad = check('ZCARD', i) or bad end
if bad and strict then return bad end

-- Chords, and the tokens of H that are held.
local tools, chords, held = nil, {}, {}
if c then
  bad = check('ZCARD', 2)
  if bad then return bad end
  tools = chord_tools(KEYS[last_schedule + 1], index, ARGV, at, true)
  at = at + 4
  for k = 0, c - 1 do
    local chord = tools.read(last_schedule + 2 + 7 * k, ARGV[at])
    chord.life, chord.body = ARGV[at + 1], ARGV[at + 2]
    if chord.wrong then any_wrong = true end
    chords[k], at = chord, at + 3
  end
  local asked, i = {}, at
  while ARGV[i] do
    if ARGV[i + 2] == 'H' then asked[#asked + 1] = ARGV[i] end
    i = i + 2 + 4 * tonumber(ARGV[i + 1])
  end
  for first = 1, #asked, 2000 do
    local last = math.min(first + 1999, #asked)
    local scores = call('ZMSCORE', index, unpack(asked, first, last))
    for a = first, last do held[asked[a]] = scores[a - first + 1] end
  end
end

-- 2. Whose turn it is.
local answer, tokens, starts, n = {}, {}, {}, 0
local taken = {}
local stays, numbers, begins = {}, {}, {} -- of H alone: its token is not removed at once; its number; where to begin

local function unwritable(from, last)
  for i = from, last, 4 do
    local kind, k = ARGV[i], tonumber(ARGV[i + 1])
    if string.find('CJjOoG', kind, 1, true) then
      if chords[k].wrong then return true end
    elseif kind ~= 'D' and wrong[k] then
      return true
    end
  end
end

-- Whether one with H may be written. ``settled`` are chords that those in front of it open or close.
local settled = {}
local function admitted(start, last)
  local token = ARGV[start]
  if token ~= '' and not held[token] then return false end
  local first, again, closes, opens
  for i = start + 6, last, 4 do
    local kind, k = ARGV[i], tonumber(ARGV[i + 1])
    if kind == 'J' or kind == 'j' then
      first = first or i
      if chords[k].token == token and not settled[k] then again = true end
    elseif kind == 'C' then
      if settled[k] or not tools.held(chords[k], ARGV[i + 2]) then return false end
      closes = k
    elseif kind == 'O' then
      opens = true
    end
  end
  if closes then
    settled[closes] = true
  elseif again and ARGV[start + 3] == 'end' then
    -- A chord has its token: all was written before, and the answer got lost. Only the parts are looked at again.
    begins[n + 1] = first
  end
  if opens then
    for i = start + 6, last, 4 do
      if ARGV[i] == 'O' then settled[tonumber(ARGV[i + 1])] = true end
    end
  end
  return true
end

local number = 0
while ARGV[at] do
  number = number + 1
  local token, actions = ARGV[at], tonumber(ARGV[at + 1])
  local last = at + 1 + 4 * actions
  if any_wrong and unwritable(at + 2, last) then
    answer[#answer + 1], answer[#answer + 2] = number, 'W'
  elseif taken[token] or (c and ARGV[at + 2] == 'H' and not admitted(at, last)) then
    answer[#answer + 1], answer[#answer + 2] = number, 'F'
  else
    n = n + 1
    tokens[n], starts[n] = token, at
    if c and ARGV[at + 2] == 'H' then
      numbers[n] = number
      local ends = ARGV[at + 3] == 'end'
      stays[n] = not ends or ARGV[at + 4] == '1'
      if ends then taken[token] = number end
    else
      taken[token] = number
    end
  end
  at = last + 1
end

-- 3. Removals. Who holds a token is in both tables, or in none: they are only ever written together. So when fewer were
-- removed from the index than were named, the hash tells which ones (asking first costs 2.5 us a token, this nothing).
local leaving, places = tokens, nil
if c then
  leaving, places = {}, {}
  for j = 1, n do
    if not stays[j] then
      leaving[#leaving + 1] = tokens[j]
      places[#leaving] = j
    end
  end
end
for i = 1, #leaving, 2000 do
  local last = math.min(i + 1999, #leaving)
  local removed = pcall('ZREM', index, unpack(leaving, i, last))
  if type(removed) == 'table' then
    return redis.error_reply('WRONGTYPE the key "' .. index .. '" is of another type')
  elseif removed == last - i + 1 then
    call('HDEL', unacked, unpack(leaving, i, last))
  else
    for j = i, last do
      if call('HDEL', unacked, leaving[j]) == 0 then
        answer[#answer + 1], answer[#answer + 2] = taken[leaving[j]], 'F'
        starts[places and places[j] or j] = false
      end
    end
  end
end

-- 4. Writes.
local function died(at, member, record)
  call('ZADD', dead, at, member)
  call('HSET', records, member, record)
  call('HINCRBY', counts, string.sub(member, 38), 1)
  call('HINCRBY', counts, '', #record)
end

local joining, rests = {}, {} -- chords with new parts, in order; where to go on when that is done

local function open(i)
  local chord = chords[tonumber(ARGV[i + 1])]
  chord.members, chord.values, chord.grows, chord.last, chord.bodied = {}, {}, {}, nil, nil
  tools.open(chord, ARGV[i + 2], ARGV[i + 3], ARGV[i + 6], ARGV[i + 7])
end

-- Notes parts of the j-th delivery from i on: the chords take all parts of a call at once.
local function part(j, i)
  local kind = ARGV[i]
  repeat
    local chord = chords[tonumber(ARGV[i + 1])]
    if not chord.joins then
      chord.joins, chord.members, chord.values, chord.grows = true, {}, {}, {}
      joining[#joining + 1] = chord
    end
    local m = #chord.members
    if kind == 'G' then
      chord.grows[m] = tonumber(ARGV[i + 2])
    else
      chord.members[m + 1], chord.values[m + 1] = ARGV[i + 2], ARGV[i + 3]
      if kind == 'J' then chord.bodied = true end
      if tokens[j] ~= '' then chord.last = j end
    end
    i = i + 4
    kind = ARGV[i]
  until i > starts[j] + 1 + 4 * tonumber(ARGV[starts[j] + 1]) or (kind ~= 'J' and kind ~= 'j' and kind ~= 'G')
  rests[j] = i
end

local scheduled, fronts = {}, {}

-- Writes what starts at ``froms``, or, where that says nothing and ``all`` is set, everything.
local function write(froms, all)
  for j = 1, n do
    local start = starts[j]
    local from = start and (froms[j] or all and start + 2)
    if from then
      for i = from, start + 1 + 4 * tonumber(ARGV[start + 1]), 4 do
        local kind, k, a, b = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
        local key = KEYS[k]
        if kind == 'S' or kind == 's' then
          local write = true
          if kind == 's' then
            local head = pcall('GETRANGE', key, 0, 19) -- Celery's text has the blank, ours has not
            write = head ~= '{"status": "SUCCESS"' and head ~= '{"status":"SUCCESS",'
          end
          if write then
            if b == '' then call('SET', key, a) else call('SET', key, a, 'PX', b) end
            call('PUBLISH', key, a)
          end
        elseif kind == 'U' then
          local holder = pcall('GET', key)
          if holder == a or holder == b then call('DEL', key) end
        elseif kind == 'L' then
          call('LPUSH', key, a)
        elseif kind == 'R' then
          fronts[#fronts + 1], fronts[#fronts + 2] = key, a
        elseif kind == 'Z' then
          call('ZADD', key, a, b)
          scheduled[ARGV[3 + k - first_schedule]] = true
        elseif kind == 'D' then
          died(ARGV[i + 1], a, b)
        elseif kind == 'J' or kind == 'j' then
          part(j, i)
          break
        elseif kind == 'O' then
          open(i)
        elseif kind == 'C' then
          tools.close(chords[k])
        end
      end
    end
  end
end
write(begins, true)

-- 5. Chords: which are complete, and which deliveries have their tokens now and do not end yet.
if c then
  local completes = {}
  for i = 1, #joining do
    local chord = joining[i]
    local complete = tools.join(chord, chord.members, chord.values, chord.grows, chord.bodied, chord.body, chord.life)
    local last = chord.last
    if complete and not last then
      tools.leave(chord)
    elseif complete and tools.take(chord, tokens[last]) then
      completes[last] = true
    end
  end
  local ending = {}
  for j = 1, n do
    if completes[j] then
      answer[#answer + 1], answer[#answer + 2] = numbers[j], 'C'
      rests[j] = nil
    elseif rests[j] and ARGV[starts[j] + 3] == 'end' then
      ending[#ending + 1] = tokens[j]
    end
  end
  for i = 1, #ending, 2000 do
    local last = math.min(i + 1999, #ending)
    call('ZREM', index, unpack(ending, i, last))
    call('HDEL', unacked, unpack(ending, i, last))
  end
  write(rests, false)
end
for i = #fronts - 1, 1, -2 do call('RPUSH', fronts[i], fronts[i + 1]) end
for queue in pairs(scheduled) do call('SADD', schedules, queue) end
return answer
