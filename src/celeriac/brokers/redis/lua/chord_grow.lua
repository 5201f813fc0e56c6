-- Lets a chord wait for more members, unless it is done.
--
-- KEYS  1 .s of the chord, 2 its .t, 3 its .c
-- ARGV  1 how many

local call = redis.call
if call('GET', KEYS[3]) == 'done' then return 0 end
local life = call('PTTL', KEYS[1])
call('INCRBY', KEYS[2], ARGV[1])
if life > 0 and call('PTTL', KEYS[2]) == -1 then call('PEXPIRE', KEYS[2], life) end
return 1
