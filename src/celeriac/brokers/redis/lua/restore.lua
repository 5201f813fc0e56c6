-- Puts deliveries back to the front of their ready lists, unless they were renewed or ended since they were looked at.
--
-- KEYS  1 unacked, 2 unacked_index, then ready lists
-- ARGV  for each delivery: token, the score it had, how many lists it goes to, their numbers in KEYS, the new text
-- Returns how many went back. Those for a list of a wrong type stay.

local call, pcall = redis.call, redis.pcall
local wrong = {}
for i = 3, #KEYS do
  local reply = pcall('LLEN', KEYS[i])
  wrong[i] = type(reply) == 'table' and reply.err and true
end
local at, restored = 1, 0
while ARGV[at] do
  local token, score, lists = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local text = ARGV[at + 3 + lists]
  local fits = call('ZSCORE', KEYS[2], token) == score
  for i = at + 3, at + 2 + lists do
    if wrong[tonumber(ARGV[i])] then fits = false end
  end
  if fits then
    call('ZREM', KEYS[2], token)
    call('HDEL', KEYS[1], token)
    for i = at + 3, at + 2 + lists do call('RPUSH', KEYS[tonumber(ARGV[i])], text) end
    restored = restored + 1
  end
  at = at + 4 + lists
end
return restored
