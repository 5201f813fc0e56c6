-- Says which deliveries may run now, in their order, and parks those for which no seat is free. Without deliveries it
-- only wakes those parked for whom there is a seat.
--
-- A seat is held by a token as long as that is in the index, or promised to a task until a time: "?<id>" -> epoch
-- seconds. Promises that have ended are kept for a minute: who comes back with one waits in front.
--
-- Those whose queues are paused are not woken.
--
-- KEYS  1 unacked, 2 unacked_index, 3 celeriac:parks, 4 celeriac:rules, then r rates, then s seats,
--       then for each of g parks: the park, and the ready lists of its queue, one for each step
-- ARGV  1 seconds by which a start may be ahead of its time, 2 seconds of a promise, 3 what pause rules begin with, 4 r,
--       5 s, 6 g, 7 number of steps, the steps, then for each rate the seconds between two starts, for each of the seats how many there are, for each park
--       the number of its seats (from 1) and its field in celeriac:parks,
--       then for each delivery: token ("" = it will not ask: what is kept for it is free), task id, number of its rate (from 1, 0 none), "1" = it has reserved its time, number
--       of its park (from 1, 0 none), number of its step (from 0), length of the end of its unacked entry, ',"","<queue>"]'
-- Returns for each delivery: "" it may run, "P" it is parked, "L" its token is gone, or when it may run, epoch seconds.

local call, pcall, KEYS, ARGV = redis.call, redis.pcall, KEYS, ARGV
local unacked, index, parks = KEYS[1], KEYS[2], KEYS[3]
local slack, promise = tonumber(ARGV[1]), tonumber(ARGV[2])
local pause = ARGV[3]
local r, s, g, steps = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local intervals, limits, fields = 7 + steps, 7 + steps + r, 7 + steps + r + s
local asks = fields + 2 * g + 1
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local rank_of = {}
for i = 1, steps do rank_of[ARGV[7 + i]] = i - 1 end

-- 1. Types, before the first write. The lengths of the parks are wanted anyway.
local lengths = {}
local function read(command, i)
  local reply = pcall(command, KEYS[i])
  if type(reply) == 'table' and reply.err then
    return nil, redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
  return reply
end
local _, bad = read('HLEN', 1)
for i = 2, 4 + r + s do
  local hash, text = i == 3 or i == 4, i > 4 and i <= 4 + r
  if not bad then _, bad = read(hash and 'HLEN' or text and 'STRLEN' or 'ZCARD', i) end
end
for i = 5 + r + s, #KEYS do
  local length
  if not bad then length, bad = read('LLEN', i) end
  lengths[i] = length
end
if bad then return bad end

-- 2. Rates: when the next start is in time, and the end of the line of those that have reserved theirs.
local rates = {}
local function rate_of(k)
  local rate = rates[k]
  if not rate then
    local start, line = string.match(call('GET', KEYS[4 + k]) or '', '^(%S+) (%S+)$')
    rate = { start = tonumber(start or 0), line = tonumber(line or 0), interval = tonumber(ARGV[intervals + k]) }
    rates[k] = rate
  end
  return rate
end

-- As Pace.take of model/limits.py.
local function take(rate, reserved)
  if rate.start <= now + slack and (reserved or rate.line <= now + slack) then
    rate.start = math.max(rate.start, now) + rate.interval
    return
  end
  local due = math.max(rate.line, rate.start, now)
  rate.line = due + rate.interval
  return due
end

-- 3. Seats.
local seats = {}
local function seats_of(k)
  local found = seats[k]
  if found then return found end
  local key, holders, promised, tokens, used = KEYS[4 + r + k], {}, {}, {}, 0
  local members = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #members, 2 do
    if string.sub(members[i], 1, 1) ~= '?' then
      tokens[#tokens + 1] = members[i]
    else
      local ends = tonumber(members[i + 1])
      if ends > now then
        promised[string.sub(members[i], 2)], used = true, used + 1
      elseif ends > now - 60 then
        promised[string.sub(members[i], 2)] = false
      else
        call('ZREM', key, members[i])
      end
    end
  end
  for i = 1, #tokens, 2000 do
    local last = math.min(i + 1999, #tokens)
    local scores = call('ZMSCORE', index, unpack(tokens, i, last))
    for j = i, last do
      if scores[j - i + 1] then
        holders[tokens[j]], used = true, used + 1
      else
        call('ZREM', key, tokens[j])
      end
    end
  end
  found = { key = key, most = tonumber(ARGV[limits + k]), holders = holders, promised = promised, used = used }
  seats[k] = found
  return found
end

local function unpromise(seat, id)
  if seat.promised[id] ~= nil then
    if seat.promised[id] then seat.used = seat.used - 1 end
    seat.promised[id] = nil
    call('ZREM', seat.key, '?' .. id)
  end
end

-- 4. Parks: lists of <step>:<length of the id>:<id><envelope>.
local places, woken = {}, {}
local function place_of(n)
  local place = places[n]
  if not place then
    local at = 5 + r + s + (n - 1) * (1 + steps)
    place = { at = at, key = KEYS[at], length = lengths[at], seat = seats_of(tonumber(ARGV[fields + 2 * n - 1])),
      field = ARGV[fields + 2 * n] }
    places[n] = place
  end
  return place
end

local function is_paused(place)
  if place.paused == nil then
    place.paused = call('HEXISTS', KEYS[4], pause .. cjson.decode(place.field)[1]) == 1
  end
  return place.paused
end

local function wake(place)
  local seat = place.seat
  while place.length > 0 and seat.used < seat.most and not is_paused(place) do
    local entry = call('LPOP', place.key)
    place.length = place.length - 1
    local first, last, step, length = string.find(entry, '^(%d+):(%d+):')
    local id = string.sub(entry, last + 1, last + tonumber(length))
    call('ZADD', seat.key, string.format('%.6f', now + promise), '?' .. id)
    seat.promised[id], seat.used = true, seat.used + 1
    woken[#woken + 1] = { KEYS[place.at + 1 + (rank_of[step] or 0)], string.sub(entry, last + 1 + #id) }
  end
end

local function park(place, token, id, step, tail)
  local entry = call('HGET', unacked, token) or ''
  local text = ARGV[7 + 1 + step] .. ':' .. #id .. ':' .. id .. string.sub(entry, 2, -(tail + 1))
  local seat = place.seat
  call('ZREM', index, token)
  call('HDEL', unacked, token)
  call(seat.promised[id] == nil and 'RPUSH' or 'LPUSH', place.key, text)
  place.length = place.length + 1
  unpromise(seat, id)
end

-- 5. One delivery after the other.
local answer, tokens, held = {}, {}, {}
for i = asks, #ARGV, 7 do tokens[#tokens + 1] = ARGV[i] end
for i = 1, #tokens, 2000 do
  local last = math.min(i + 1999, #tokens)
  local scores = call('ZMSCORE', index, unpack(tokens, i, last))
  for j = i, last do held[j] = scores[j - i + 1] end
end
for j = 1, #tokens do
  local i = asks + 7 * (j - 1)
  local token, id, rate, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 4])
  local verdict, seat = '', nil
  if token == '' then
    verdict, seat = 'L', place_of(n).seat
    if seat.promised[id] then
      call('ZADD', seat.key, string.format('%.6f', now), '?' .. id)
      seat.promised[id], seat.used = false, seat.used - 1
    end
    seat = nil
  elseif not held[j] then
    verdict = 'L'
  elseif n > 0 then
    local place = place_of(n)
    seat = place.seat
    if seat.holders[token] then
      rate = 0  -- once more: it may run already
    elseif not seat.promised[id] then
      wake(place)
      if seat.used >= seat.most then
        park(place, token, id, tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]))
        verdict = 'P'
      end
    end
  end
  if verdict == '' and rate > 0 then
    local due = take(rate_of(rate), ARGV[i + 3] == '1')
    if due then verdict = string.format('%.6f', due) end
  end
  if seat and verdict ~= 'P' then
    unpromise(seat, id)
    if verdict == '' and not seat.holders[token] then
      call('ZADD', seat.key, '+inf', token)
      seat.holders[token], seat.used = true, seat.used + 1
    end
  end
  answer[j] = verdict
end

-- 6. Seats may have become free, and promises given up. Who was woken goes to the front, the first first.
for n = 1, g do
  local place = place_of(n)
  wake(place)
  if place.length > 0 then
    call('HSET', parks, place.field, place.seat.most)
  else
    call('HDEL', parks, place.field)
  end
end
for i = #woken, 1, -1 do call('RPUSH', woken[i][1], woken[i][2]) end
for k, rate in pairs(rates) do
  local life = math.max(rate.start, rate.line) - now + 1
  call('SET', KEYS[4 + k], string.format('%.6f %.6f', rate.start, rate.line), 'PX', math.ceil(life * 1000))
end
-- A seat that nobody asks for in a week is that of a delivery which ended without a word.
for _, seat in pairs(seats) do call('EXPIRE', seat.key, 604800) end
return answer
