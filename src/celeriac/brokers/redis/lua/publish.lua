-- Puts messages on ready lists and schedules: all of them, or none when a key has a wrong type.
--
-- KEYS  1 schedules, 2 .. 1+l ready lists, then z schedules
-- ARGV  1 l, 2 z, 3 .. 2+z the queues of the schedules,
--       then for each list: how many texts, the texts; for each schedule: how many members, then score, member, ...

local call, pcall = redis.call, redis.pcall
local l, z = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 1, #KEYS do
  local command = (i == 1 and 'SCARD') or (i <= 1 + l and 'LLEN') or 'ZCARD'
  local reply = pcall(command, KEYS[i])
  if type(reply) == 'table' and reply.err then
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
end
local at = 3 + z
for i = 2, 1 + l do
  local count = tonumber(ARGV[at])
  for j = at + 1, at + count, 2000 do
    call('LPUSH', KEYS[i], unpack(ARGV, j, math.min(j + 1999, at + count)))
  end
  at = at + 1 + count
end
for i = 2 + l, 1 + l + z do
  local count = 2 * tonumber(ARGV[at])
  for j = at + 1, at + count, 2000 do
    call('ZADD', KEYS[i], unpack(ARGV, j, math.min(j + 1999, at + count)))
  end
  at = at + 1 + count
end
if z > 0 then call('SADD', KEYS[1], unpack(ARGV, 3, 2 + z)) end
return 1
