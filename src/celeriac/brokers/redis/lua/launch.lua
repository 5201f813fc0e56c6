-- Publishes what was put aside in several calls: all of it, or nothing when some of it is gone or a key has a wrong type.
-- A staged list takes the place of its ready list when that is the shorter one: a hundred thousand messages move at once.
--
-- KEYS  1 the set of the stage, then pairs of staged list and ready list
-- ARGV  1 how many messages there must be
-- Returns 1, or 0 when there are not so many.

local call, pcall = redis.call, redis.pcall
local total, waiting = 0, {}
for i = 2, #KEYS, 2 do
  local length = pcall('LLEN', KEYS[i + 1])
  if type(length) == 'table' and length.err then
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i + 1] .. '" is of another type')
  end
  waiting[i] = length
  total = total + call('LLEN', KEYS[i])
end
if total ~= tonumber(ARGV[1]) then return 0 end
for i = 2, #KEYS, 2 do
  local staged, ready = KEYS[i], KEYS[i + 1]
  local count = call('LLEN', staged)
  if waiting[i] <= count then
    -- What waits is in front: it is moved, newest first, to the end that is taken from.
    for _ = 1, waiting[i] do call('LMOVE', ready, staged, 'LEFT', 'RIGHT') end
    if count > 0 then
      call('PERSIST', staged)
      call('RENAME', staged, ready)
    end
  else
    for _ = 1, count do call('LMOVE', staged, ready, 'RIGHT', 'LEFT') end
  end
end
call('DEL', KEYS[1])
return 1
