-- What the scripts that take dead letters away have in common; stands in front of them.

local call, pcall = redis.call, redis.pcall

-- The first key of a wrong type, before anything is written: keys and the command that fails on such a one.
local function wrong_type(keys, commands)
  for i = 1, #keys do
    local reply = pcall(commands[i], keys[i])
    if type(reply) == 'table' and reply.err then
      return redis.error_reply('WRONGTYPE the key "' .. keys[i] .. '" is of another type')
    end
  end
end

-- Forgets a letter; says whether it was there. KEYS start with dead, dead:records, dead:counts.
local function forget(member)
  if call('ZREM', KEYS[1], member) == 0 then return false end
  local size = call('HSTRLEN', KEYS[2], member)
  call('HDEL', KEYS[2], member)
  local queue = string.sub(member, 38)
  if call('HINCRBY', KEYS[3], queue, -1) <= 0 then call('HDEL', KEYS[3], queue) end
  if call('HINCRBY', KEYS[3], '', -size) <= 0 then call('HDEL', KEYS[3], '') end
  return true
end

