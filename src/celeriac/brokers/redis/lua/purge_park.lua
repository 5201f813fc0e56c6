-- Drops everything of one queue that is parked behind limits.
--
-- KEYS  1 celeriac:parks, then parks
-- ARGV  their fields in celeriac:parks
-- Returns how many messages that were.

local dropped = 0
for i = 2, #KEYS do
  dropped = dropped + redis.call('LLEN', KEYS[i])
  redis.call('UNLINK', KEYS[i])
  redis.call('HDEL', KEYS[1], ARGV[i - 1])
end
return dropped
