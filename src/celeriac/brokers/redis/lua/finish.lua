-- Ends deliveries, each with everything that follows from it, or not at all: a delivery whose token is gone changes
-- nothing. Removals come before writes.
--
-- KEYS  1 unacked, 2 unacked_index, 3 dead, 4 dead:records, 5 dead:counts, 6 schedules,
--       then result keys, then l ready lists, then z schedules
-- ARGV  1 l, 2 z, 3 .. 2+z the queues of the schedules, 3+z mode: "strict" = a wrong type is an error and changes
--       nothing, "each" = it concerns only the deliveries that need that key, 4+z "1" = there are dead letters,
--       then for each delivery: token, number of actions, and for each action: kind, number of the key, a, b:
--         S result a for b milliseconds ("" for ever) and its announcement
--         s the same, unless a SUCCESS is stored
--         L text a to the back of a ready list
--         R text a to the front of a ready list; those of one call keep their order
--         Z member b at a into a schedule
--         D dead letter a ("<uuid>:<queue>") with record b, in place of the key the time of the death
-- Returns { number of the delivery, "F" fenced or "W" wrong type, ... }: only those that were not done.

local call, pcall = redis.call, redis.pcall
local unacked, index, dead, records, counts, schedules = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local l, z = tonumber(ARGV[1]), tonumber(ARGV[2])
local strict, deaths = ARGV[3 + z] == 'strict', ARGV[4 + z] == '1'
local first_schedule = #KEYS - z + 1
local first_list = first_schedule - l

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
for i = first_schedule, #KEYS do bad = check('ZCARD', i) or bad end
if bad and strict then return bad end

-- 2. Whose turn it is.
local answer, tokens, starts, n = {}, {}, {}, 0
local at, number = 5 + z, 0
local taken = {}
while ARGV[at] do
  number = number + 1
  local token, actions = ARGV[at], tonumber(ARGV[at + 1])
  local stepwise = false
  if any_wrong then
    for i = at + 2, at + 1 + 4 * actions, 4 do
      if ARGV[i] ~= 'D' and wrong[tonumber(ARGV[i + 1])] then stepwise = true end
    end
  end
  if stepwise then
    answer[#answer + 1], answer[#answer + 2] = number, 'W'
  elseif taken[token] then
    answer[#answer + 1], answer[#answer + 2] = number, 'F'
  else
    n = n + 1
    tokens[n], starts[n], taken[token] = token, at, number
  end
  at = at + 2 + 4 * actions
end

-- 3. Removals. Who holds a token is in both tables, or in none: they are only ever written together. So when fewer were
-- removed from the index than were named, the hash tells which ones (asking first costs 2.5 us a token, this nothing).
for i = 1, n, 2000 do
  local last = math.min(i + 1999, n)
  local removed = pcall('ZREM', index, unpack(tokens, i, last))
  if type(removed) == 'table' then
    return redis.error_reply('WRONGTYPE the key "' .. index .. '" is of another type')
  elseif removed == last - i + 1 then
    call('HDEL', unacked, unpack(tokens, i, last))
  else
    for j = i, last do
      if call('HDEL', unacked, tokens[j]) == 0 then
        answer[#answer + 1], answer[#answer + 2] = taken[tokens[j]], 'F'
        starts[j] = false
      end
    end
  end
end

-- 4. Writes.
local function died(at, member, record)
  call('ZADD', dead, at, member)
  call('HSET', records, member, record)
  call('HINCRBY', counts, string.sub(member, 38), 1)
end
local scheduled, fronts = {}, {}
for j = 1, n do
  local start = starts[j]
  if start then
    for i = start + 2, start + 1 + 4 * tonumber(ARGV[start + 1]), 4 do
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
      elseif kind == 'L' then
        call('LPUSH', key, a)
      elseif kind == 'R' then
        fronts[#fronts + 1], fronts[#fronts + 2] = key, a
      elseif kind == 'Z' then
        call('ZADD', key, a, b)
        scheduled[ARGV[3 + k - first_schedule]] = true
      else
        died(ARGV[i + 1], a, b)
      end
    end
  end
end
for i = #fronts - 1, 1, -2 do call('RPUSH', fronts[i], fronts[i + 1]) end
for queue in pairs(scheduled) do call('SADD', schedules, queue) end
return answer
