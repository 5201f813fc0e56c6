-- A page of dead letters, the newest first, bounded in number and bytes.
--
-- KEYS  1 dead, 2 dead:records
-- ARGV  1 score and 2 member of the last letter of the page before ("" and "": from the newest on),
--       3 most letters, 4 about how many bytes
-- Returns { "1" = there may be more, member, score, record, member, ... }; a record that is missing is false.

local call = redis.call
local rank = 0
if ARGV[1] ~= '' then
  local last = call('ZREVRANK', KEYS[1], ARGV[2])
  if last then
    rank = last + 1
  else
    -- It was taken away: behind all that died later, and those of the same moment that stood before it.
    rank = call('ZCOUNT', KEYS[1], '(' .. ARGV[1], '+inf')
    local before = true
    while before do
      local next = call('ZREVRANGE', KEYS[1], rank, rank, 'WITHSCORES')
      before = next[1] and next[2] == ARGV[1] and next[1] > ARGV[2]
      if before then rank = rank + 1 end
    end
  end
end
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local members = call('ZREVRANGE', KEYS[1], rank, rank + most - 1, 'WITHSCORES')
local answer, bytes = { '' }, 0
for i = 1, #members, 2 do
  local record = call('HGET', KEYS[2], members[i])
  answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = members[i], members[i + 1], record
  bytes = bytes + (record and #record or 0)
  if bytes > most_bytes or i + 1 == 2 * most then
    answer[1] = '1'
    break
  end
end
return answer
