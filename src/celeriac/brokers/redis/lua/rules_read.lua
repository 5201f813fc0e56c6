-- Reads the rules that changed after an epoch, or all that are in force.
--
-- KEYS  1 epoch, 2 hash of values, 3 zset of epochs, 4 zset of ends, 5 the last epoch of all dropped rules that are forgotten
-- ARGV  1 the epoch, 2 what the keys of interest begin with
-- Returns { the epoch now as text, "1" = these are all in force, { key, value (false: dropped), end ("" never), epoch,
--       ... } in the order of their changes, the server's time as text (seconds since the epoch) }.

local call = redis.call
local after = tonumber(ARGV[1])
local epoch = call('GET', KEYS[1]) or '0'
local all = after < math.max(1, tonumber(call('GET', KEYS[5]) or '0')) or after > tonumber(epoch)
local found = call('ZRANGEBYSCORE', KEYS[3], all and '-inf' or '(' .. ARGV[1], '+inf', 'WITHSCORES')
local rules, begins = {}, ARGV[2]
for i = 1, #found, 2 do
  local key = found[i]
  if string.sub(key, 1, #begins) == begins then
    local value = call('HGET', KEYS[2], key)
    if value or not all then
      local n = #rules
      rules[n + 1], rules[n + 2] = key, value
      rules[n + 3], rules[n + 4] = call('ZSCORE', KEYS[4], key) or '', found[i + 1]
    end
  end
end
local time = call('TIME')
return { epoch, all and '1' or '', rules, string.format('%d.%06d', time[1], time[2]) }
