-- Takes a batch of messages under leases: due messages first go from the schedules to the front of the ready lists, then
-- messages are popped across the priority lists and recorded as unacked. Nothing changes when a key has a wrong type.
--
-- KEYS  1 unacked, 2 unacked_index, 3 .. 2+q the schedules of the q queues,
--       then the ready lists: all queues at the first step, all queues at the second step, ... (kombu's order)
-- ARGV  1 format of the tokens "celeriac:<owner>:%0<width>d", 2 number of the first token, 3 limit, 4 most due messages to move
--       a schedule, 5 seconds by which the lease is longer than the usual one, 6 q, 7 .. 6+q the ends of the unacked entries ',"","<queue>"]',
--       then the steps, one for each rank
-- Returns { seconds until the next message is due as text ("" none), { rank-major number of the list, { envelope, ... } },
--       ... }: tokens are numbered in this order.

local call, pcall = redis.call, redis.pcall
local unacked, index = KEYS[1], KEYS[2]
local first, limit, bound, q = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local lists_from = 2 + q

local function wrong(reply, key)
  if type(reply) == 'table' and reply.err then
    return redis.error_reply('WRONGTYPE the key "' .. key .. '" is of another type')
  end
end

-- Reads that check types. A caller that is about to wait has them tracked, so that it hears of any later change.
local lengths, total = {}, 0
local bad
for i = lists_from + 1, #KEYS do
  local length = pcall('LLEN', KEYS[i])
  bad = wrong(length, KEYS[i])
  if bad then return bad end
  lengths[i] = length
  total = total + length
end
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local heads, nearest = {}, nil
for i = 1, q do
  local head = pcall('ZRANGE', KEYS[2 + i], 0, 0, 'WITHSCORES')
  bad = wrong(head, KEYS[2 + i])
  if bad then return bad end
  if head[1] then
    heads[i] = tonumber(head[2])
    if not nearest or heads[i] < nearest then nearest = heads[i] end
  end
end
if total == 0 and not (nearest and nearest <= now) then
  return { nearest and string.format('%.6f', nearest - now) or '' }
end
-- Not by reads: whoever waits must not hear of every claim and settlement.
bad = wrong(pcall('HDEL', unacked, ''), unacked) or wrong(pcall('ZREM', index, ''), index)
if bad then return bad end

if nearest and nearest <= now then
  nearest = nil
  local rank_of
  for i = 1, q do
    if heads[i] and heads[i] <= now then
      if not rank_of then
        rank_of = {}
        for r = 7 + q, #ARGV do rank_of[ARGV[r]] = r - 7 - q end
      end
      local schedule = KEYS[2 + i]
      local due = call('ZRANGEBYSCORE', schedule, '-inf', string.format('%.6f', now), 'LIMIT', 0, bound)
      if #due > 0 then call('ZREMRANGEBYRANK', schedule, 0, #due - 1) end
      for m = #due, 1, -1 do -- the earliest ends up in front
        local colon = string.find(due[m], ':', 1, true) or 0
        local list = lists_from + (rank_of[string.sub(due[m], 1, colon - 1)] or 0) * q + i
        call('RPUSH', KEYS[list], string.sub(due[m], colon + 1))
        lengths[list] = lengths[list] + 1
      end
      local head = call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
      heads[i] = head[1] and tonumber(head[2])
    end
    if heads[i] and (not nearest or heads[i] < nearest) then nearest = heads[i] end
  end
end

local answer = { nearest and string.format('%.6f', math.max(nearest - now, 0)) or '' }
local entries, scores, n = {}, {}, 0
local score = string.format('%.6f', now + tonumber(ARGV[5]))
local form, token_of = ARGV[1], string.format
for i = lists_from + 1, #KEYS do
  if n == limit then break end
  if lengths[i] > 0 then
    local popped = call('RPOP', KEYS[i], limit - n)
    local tail = ARGV[7 + (i - lists_from - 1) % q]
    for m = 1, #popped do
      local token = token_of(form, first + n)
      n = n + 1
      entries[2 * n - 1] = token
      entries[2 * n] = '[' .. popped[m] .. tail
      scores[2 * n - 1] = score
      scores[2 * n] = token
    end
    answer[#answer + 1] = { i - lists_from - 1, popped }
  end
end
for i = 1, 2 * n, 2000 do -- unpack has a limit of its own
  local last = math.min(i + 1999, 2 * n)
  call('HSET', unacked, unpack(entries, i, last))
  call('ZADD', index, unpack(scores, i, last))
end
return answer
