-- Counts one page of the unacked entries by queue; entries end with the queue, written our way or kombu's.
--
-- KEYS  1 unacked
-- ARGV  1 cursor, 2 page, then for each queue: our end of an entry, kombu's end of it
-- Returns { next cursor, the counts }.

local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local counts = {}
for i = 3, #ARGV, 2 do counts[#counts + 1] = 0 end
for e = 2, #page[2], 2 do
  local entry = page[2][e]
  for i = 3, #ARGV, 2 do
    if string.sub(entry, -#ARGV[i]) == ARGV[i] or string.sub(entry, -#ARGV[i + 1]) == ARGV[i + 1] then
      local c = (i - 1) / 2
      counts[c] = counts[c] + 1
    end
  end
end
return { page[1], counts }
