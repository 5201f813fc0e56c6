-- One page of deliveries that were not renewed for a while.
--
-- KEYS  1 unacked_index
-- ARGV  1 usual lease in seconds, 2 visibility timeout of foreign tokens in seconds, 3 start of our tokens, 4 offset, 5 page
-- Returns { entries in the index, next offset (-1: that was all), our expired tokens and their scores { t, s, ... },
--       the foreign ones past their visibility timeout { t, s, ... }, seconds until the next of our leases ends as text
--       ("" none among the ten oldest entries; what has ended already does not count) }.

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local lease, visibility, start = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local offset, page = tonumber(ARGV[4]), tonumber(ARGV[5])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now - math.min(lease, visibility)),
  'WITHSCORES', 'LIMIT', offset, page)
local ours, foreign = {}, {}
for i = 1, #found, 2 do
  local into
  local age = now - tonumber(found[i + 1])
  if string.sub(found[i], 1, #start) == start then
    into = age >= lease and ours
  else
    into = age >= visibility and foreign
  end
  if into then
    into[#into + 1] = found[i]
    into[#into + 1] = found[i + 1]
  end
end
local ending = ''
local oldest = redis.call('ZRANGE', KEYS[1], 0, 9, 'WITHSCORES')
for i = 1, #oldest, 2 do
  local left = tonumber(oldest[i + 1]) + lease - now
  if left > 0 and string.sub(oldest[i], 1, #start) == start then
    ending = string.format('%.6f', left)
    break
  end
end
return { redis.call('ZCARD', KEYS[1]), #found == 2 * page and offset + page or -1, ours, foreign, ending }
