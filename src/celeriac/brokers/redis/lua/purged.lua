-- Takes a page of what was purged, and returns those messages of it that may carry the lock of a unique task.
--
-- KEYS  1 a schedule or a ready list that was set aside (purge.lua)
-- ARGV  1 most to take, 2 text that each message with a lock contains
-- Returns { how many are left, message, ... }.

local call, key, most = redis.call, KEYS[1], tonumber(ARGV[1])
local scheduled = call('TYPE', key).ok == 'zset'
local page
if scheduled then
  page = call('ZRANGE', key, 0, most - 1)
  call('ZREMRANGEBYRANK', key, 0, most - 1)
else
  page = call('LRANGE', key, 0, most - 1)
  call('LTRIM', key, most, -1)
end
local found = { scheduled and call('ZCARD', key) or call('LLEN', key) }
for i = 1, #page do
  if string.find(page[i], ARGV[2], 1, true) then
    -- A member of the schedule has its priority step in front.
    found[#found + 1] = scheduled and string.sub(page[i], string.find(page[i], ':', 1, true) + 1) or page[i]
  end
end
return found
