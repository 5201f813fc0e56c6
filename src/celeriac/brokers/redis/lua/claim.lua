-- Takes a batch of messages under leases: due messages first go from the schedules to the front of the ready lists, then
-- messages are popped across the priority lists and recorded as unacked. When a key has a wrong type, all is put back.
--
-- KEYS  1 unacked, 2 unacked_index, 3 .. 2+q the schedules of the q queues,
--       then the ready lists: all queues at the first step, all queues at the second step, ... (kombu's order),
--       and last the epoch of the rules
-- ARGV  1 format of the tokens "celeriac:<owner>:%0<width>d", 2 number of the first token, 3 limit, 4 most due messages
--       to move a schedule, 5 seconds by which the lease is longer than the usual one, 6 "1" = the caller listens: it wants
--       to hear of changes when there is nothing now, 7 q, 8 .. 7+q the ends of the unacked entries ',"","<queue>"]',
--       then the steps, one for each rank
-- Returns { { seconds until the next message is due as text ("" none), epoch of the rules (false: none) }, the server's time
--       as text, { rank-major number of the list, { envelope, ... } }, ... }: tokens are numbered in this order.

local call, pcall = redis.call, redis.pcall
local unacked, index = KEYS[1], KEYS[2]
local limit, q = tonumber(ARGV[3]), tonumber(ARGV[7])
local lists_from, lists_to = 2 + q, #KEYS - 1

local function wrong(reply, key)
  if type(reply) == 'table' and reply.err then
    return redis.error_reply('WRONGTYPE the key "' .. key .. '" is of another type')
  end
end

-- 1. What is due. The schedules are read in any case: whoever listens hears of earlier messages.
local nearest, now
local heads = {}
for i = 1, q do
  local head = pcall('ZRANGE', KEYS[2 + i], 0, 0, 'WITHSCORES')
  local bad = wrong(head, KEYS[2 + i])
  if bad then return bad end
  if head[1] then
    heads[i] = tonumber(head[2])
    if not nearest or heads[i] < nearest then nearest = heads[i] end
  end
end
local time = call('TIME')
if nearest then
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
  if nearest <= now then
    for i = lists_from + 1, lists_to do
      local bad = wrong(pcall('LLEN', KEYS[i]), KEYS[i])
      if bad then return bad end
    end
    local rank_of = {}
    for r = 8 + q, #ARGV do rank_of[ARGV[r]] = r - 8 - q end
    nearest = nil
    for i = 1, q do
      local schedule = KEYS[2 + i]
      if heads[i] and heads[i] <= now then
        local due = call('ZRANGEBYSCORE', schedule, '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[4])
        if #due > 0 then call('ZREMRANGEBYRANK', schedule, 0, #due - 1) end
        for m = #due, 1, -1 do -- the earliest ends up in front
          local colon = string.find(due[m], ':', 1, true) or 0
          local list = lists_from + (rank_of[string.sub(due[m], 1, colon - 1)] or 0) * q + i
          call('RPUSH', KEYS[list], string.sub(due[m], colon + 1))
        end
        local head = call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
        heads[i] = head[1] and tonumber(head[2])
      end
      if heads[i] and (not nearest or heads[i] < nearest) then nearest = heads[i] end
    end
  end
end
-- Read before anything is popped: the rules as of this claim. Whoever listens hears of the next change.
local epoch = call('GET', KEYS[#KEYS])
local clock = time[1] .. '.' .. string.sub('00000' .. time[2], -6)
local answer = { { nearest and string.format('%.6f', math.max(nearest - now, 0)) or '', epoch }, clock }

-- 2. Pop.
local n = 0
local function put_back()
  for a = #answer, 3, -1 do
    local key, popped = KEYS[answer[a][1] + lists_from + 1], answer[a][2]
    for m = #popped, 1, -1 do call('RPUSH', key, popped[m]) end
  end
end
for i = lists_from + 1, lists_to do
  local popped = pcall('RPOP', KEYS[i], limit - n)
  if popped then
    local bad = wrong(popped, KEYS[i])
    if bad then
      put_back()
      return bad
    end
    answer[#answer + 1] = { i - lists_from - 1, popped }
    n = n + #popped
    if n >= limit then break end
  end
end
if n == 0 then
  if ARGV[6] == '1' then
    -- Reads, unlike RPOP, are tracked.
    for i = lists_from + 1, lists_to do call('LLEN', KEYS[i]) end
  end
  return answer
end

-- 3. Record.
local shift, score = tonumber(ARGV[5])
if shift == 0 then
  score = clock
else
  score = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + shift)
end
local entries, scores, at = {}, {}, 0
local form, token_of, first = ARGV[1], string.format, tonumber(ARGV[2])
for a = 3, #answer do
  local tail, popped = ARGV[8 + answer[a][1] % q], answer[a][2]
  for m = 1, #popped do
    local token = token_of(form, first + at)
    at = at + 1
    entries[2 * at - 1], entries[2 * at] = token, '[' .. popped[m] .. tail
    scores[2 * at - 1], scores[2 * at] = score, token
  end
end
for i = 1, 2 * n, 2000 do -- unpack has a limit of its own
  local last = math.min(i + 1999, 2 * n)
  local bad = wrong(pcall('HSET', unacked, unpack(entries, i, last)), unacked)
  if not bad then
    bad = wrong(pcall('ZADD', index, unpack(scores, i, last)), index)
    if bad then
      for j = i, last, 2 do call('HDEL', unacked, entries[j]) end
    end
  end
  if bad then -- in the first round or never: a type does not change on the way
    put_back()
    return bad
  end
end
return answer
