-- Moves due messages from schedules to the front of the ready lists.
--
-- KEYS  1 schedules, then for each queue: its schedule and its ready lists, one for each step
-- ARGV  1 most messages to move a queue, 2 number of steps, the steps, then the queues
-- Returns the seconds until the next message is due as text ("" none). Queues of a wrong type are left alone.

local call, pcall = redis.call, redis.pcall
local bound, steps = tonumber(ARGV[1]), tonumber(ARGV[2])
local rank_of = {}
for r = 1, steps do rank_of[ARGV[2 + r]] = r - 1 end
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local until_now = string.format('%.6f', now)
local nearest
local number = 0
for i = 2, #KEYS, 1 + steps do
  number = number + 1
  local fits = true
  for j = i, i + steps do
    local reply = pcall(j == i and 'ZCARD' or 'LLEN', KEYS[j])
    if type(reply) == 'table' and reply.err then fits = false end
  end
  if fits then
    local due = call('ZRANGEBYSCORE', KEYS[i], '-inf', until_now, 'LIMIT', 0, bound)
    if #due > 0 then
      call('ZREMRANGEBYRANK', KEYS[i], 0, #due - 1)
      for m = #due, 1, -1 do -- the earliest ends up in front
        local colon = string.find(due[m], ':', 1, true) or 0
        local rank = rank_of[string.sub(due[m], 1, colon - 1)] or 0
        call('RPUSH', KEYS[i + 1 + rank], string.sub(due[m], colon + 1))
      end
    end
    local head = call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
    if head[1] then
      local score = tonumber(head[2])
      if not nearest or score < nearest then nearest = score end
    else
      call('SREM', KEYS[1], ARGV[2 + steps + number])
    end
  end
end
return nearest and string.format('%.6f', math.max(nearest - now, 0)) or ''
