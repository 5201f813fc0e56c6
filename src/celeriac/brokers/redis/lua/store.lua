-- Writes result records and announces each on the channel of the same name.
--
-- KEYS  result keys
-- ARGV  for each key: record, milliseconds to keep it ("" for ever), "1" = terminal
-- A record that is not terminal never replaces a stored SUCCESS.

local call, pcall = redis.call, redis.pcall
for i = 1, #KEYS do
  local key, body, ttl, terminal = KEYS[i], ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local head = terminal ~= '1' and pcall('GETRANGE', key, 0, 19) -- Celery's text has the blank, ours has not
  if head ~= '{"status": "SUCCESS"' and head ~= '{"status":"SUCCESS",' then
    if ttl == '' then call('SET', key, body) else call('SET', key, body, 'PX', ttl) end
    call('PUBLISH', key, body)
  end
end
return 1
