-- Writes or drops rules of the fleet. Each change begins an epoch: milliseconds of the server's clock, or one more than the
-- last, so that a server that lost its data does not repeat those that readers know.
--
-- KEYS  1 epoch, 2 hash of values, 3 zset of epochs, 4 zset of ends (epoch seconds), 5 the last epoch of all dropped rules
--       that are forgotten
-- ARGV  1 seconds that a dropped rule is remembered, 2 how many rules beginning with ARGV[3] are kept, 3 that beginning,
--       then for each change: key, "set" or "drop", value, seconds to keep it ("" for ever)
-- Returns the last epoch as text.

local call, pcall = redis.call, redis.pcall
for i, command in ipairs({ 'STRLEN', 'HLEN', 'ZCARD', 'ZCARD', 'STRLEN' }) do
  local reply = pcall(command, KEYS[i])
  if type(reply) == 'table' and reply.err then
    return redis.error_reply('WRONGTYPE the key "' .. KEYS[i] .. '" is of another type')
  end
end
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local clock, epoch = math.floor(now * 1000), tonumber(call('GET', KEYS[1]) or '0')
local function text(number) return string.format('%.0f', number) end

-- What is over goes first, some more than what comes: it cannot grow without end.
local over = call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('%.6f', now), 'LIMIT', 0, #ARGV + 100)
for _, key in ipairs(over) do
  if call('HDEL', KEYS[2], key) == 0 then
    local forgotten = tonumber(call('ZSCORE', KEYS[3], key) or '0')
    if forgotten > tonumber(call('GET', KEYS[5]) or '0') then call('SET', KEYS[5], text(forgotten)) end
  end
  call('ZREM', KEYS[3], key)
  call('ZREM', KEYS[4], key)
end

for i = 4, #ARGV, 4 do
  local key, life = ARGV[i], ARGV[i + 3]
  epoch = math.max(epoch + 1, clock)
  if ARGV[i + 1] == 'set' then
    call('HSET', KEYS[2], key, ARGV[i + 2])
  else
    call('HDEL', KEYS[2], key)
    life = ARGV[1]
  end
  call('ZADD', KEYS[3], text(epoch), key)
  if life == '' then
    call('ZREM', KEYS[4], key)
  else
    call('ZADD', KEYS[4], string.format('%.6f', now + tonumber(life)), key)
  end
end
call('SET', KEYS[1], text(epoch))

-- Of the bounded kind the oldest go; a thousand more may stay for a while, so that not every change has to count.
local most, begins = tonumber(ARGV[2]), ARGV[3]
if call('ZCARD', KEYS[3]) > most + 1000 then
  local bounded = {}
  for _, key in ipairs(call('ZRANGE', KEYS[3], 0, -1)) do
    if string.sub(key, 1, #begins) == begins then bounded[#bounded + 1] = key end
  end
  for i = 1, #bounded - most do
    call('HDEL', KEYS[2], bounded[i])
    call('ZREM', KEYS[3], bounded[i])
    call('ZREM', KEYS[4], bounded[i])
  end
end
return text(epoch)
