-- Takes the messages of some tasks out of one page of a ready list, a schedule or a park, under leases. An id is what stands
-- behind "id": in the text, which is never decoded here; whoever gets the messages looks more closely.
--
-- KEYS  1 unacked, 2 unacked_index, 3 the list, schedule or park
-- ARGV  1 format of the tokens, 2 number of the first token, 3 seconds by which the lease is longer than the usual one,
--       4 the end of the unacked entries ',"","<queue>"]', 5 "list", "zset" or "park", 6 where to go on: index or cursor, 7 page,
--       then the ids, as they are written in JSON
-- Returns { where to go on as text ("" the end), bytes that were looked at, envelopes under tokens in this order }.

local call = redis.call
local wanted = {}
for i = 8, #ARGV do wanted[ARGV[i]] = true end
local function is_wanted(text)
  -- A plain search first: a pattern that is tried at each character takes ten times as long.
  local _, last = string.find(text, '"id"', 1, true)
  while last do
    if wanted[string.match(text, '^%s*:%s*"([^"]*)"', last + 1) or false] then return true end
    _, last = string.find(text, '"id"', last + 1, true)
  end
end

local kind, parked = call('TYPE', KEYS[3]).ok, ARGV[5] == 'park'
if kind ~= (parked and 'list' or ARGV[5]) then return { '', 0, {} } end
local envelopes, next_at, bytes = {}, '', 0
if kind == 'list' then
  local from, size = tonumber(ARGV[6]), tonumber(ARGV[7])
  local page = call('LRANGE', KEYS[3], from, from + size - 1)
  for i, text in ipairs(page) do
    bytes = bytes + #text
    if parked then
      local _, last, length = string.find(text, '^%d+:(%d+):')
      text = string.sub(text, last + 1 + tonumber(length))
    end
    if is_wanted(text) then
      envelopes[#envelopes + 1] = text
      -- No message looks like a token. Marked first, removed in one pass from the nearer end: it walks along the list.
      call('LSET', KEYS[3], from + i - 1, ARGV[1])
    end
  end
  if #envelopes > 0 then
    local near = from + size / 2 < call('LLEN', KEYS[3]) / 2
    call('LREM', KEYS[3], near and #envelopes or -#envelopes, ARGV[1])
  end
  if #page == size then next_at = tostring(from + size - #envelopes) end
else
  local page = call('ZSCAN', KEYS[3], ARGV[6], 'COUNT', ARGV[7])
  for i = 1, #page[2], 2 do
    local member = page[2][i]
    bytes = bytes + #member
    if is_wanted(member) and call('ZREM', KEYS[3], member) == 1 then
      envelopes[#envelopes + 1] = string.sub(member, (string.find(member, ':', 1, true) or 0) + 1)
    end
  end
  if page[1] ~= '0' then next_at = page[1] end
end

local time = call('TIME')
local score = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[3]))
for i, text in ipairs(envelopes) do
  local token = string.format(ARGV[1], tonumber(ARGV[2]) + i - 1)
  call('HSET', KEYS[1], token, '[' .. text .. ARGV[4])
  call('ZADD', KEYS[2], score, token)
end
return { next_at, bytes, envelopes }
