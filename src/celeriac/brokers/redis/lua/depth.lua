-- How full queues are, but for what is leased (leased.lua).
--
-- KEYS  1 dead:counts, then for each queue: its schedule and its ready lists, one for each step
-- ARGV  1 number of steps, then the queues
-- Returns for each queue: ready, scheduled, dead.

local call, pcall = redis.call, redis.pcall
local steps = tonumber(ARGV[1])
local answer = {}
local number = 0
for i = 2, #KEYS, 1 + steps do
  number = number + 1
  local ready = 0
  local scheduled
  for j = i, i + steps do
    local length = pcall(j == i and 'ZCARD' or 'LLEN', KEYS[j])
    if type(length) == 'table' then
      return redis.error_reply('WRONGTYPE the key "' .. KEYS[j] .. '" is of another type')
    end
    if j == i then scheduled = length else ready = ready + length end
  end
  answer[#answer + 1] = ready
  answer[#answer + 1] = scheduled
  answer[#answer + 1] = tonumber(call('HGET', KEYS[1], ARGV[1 + number]) or 0)
end
return answer
