-- The chords that a sweeper is to look at now. Whoever asks first gets them; the others not before the next look.
--
-- KEYS  1 celeriac:chords
-- ARGV  1 seconds until the next look, 2 most chords
-- Returns their ids.

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[2])
local later = string.format('%.6f', now + tonumber(ARGV[1]))
for i = 1, #due do redis.call('ZADD', KEYS[1], 'XX', later, due[i]) end
return due
