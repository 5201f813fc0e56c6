-- The ledger's changes, for the scripts that make some. A change is the key and five arguments: "any" whatever stands
-- there, "none" only when nothing does, "is" only when it is the next one; what is expected; "set" or "drop"; the value;
-- milliseconds to keep it ("" for ever).

local function ledger_allows(key, at)
  local mode = ARGV[at]
  if mode == 'any' then return true end
  local there = redis.call('GET', key)
  if mode == 'none' then return not there end
  return there == ARGV[at + 1]
end

local function ledger_make(key, at)
  if ARGV[at + 2] == 'drop' then
    redis.call('DEL', key)
  elseif ARGV[at + 4] == '' then
    redis.call('SET', key, ARGV[at + 3])
  else
    redis.call('SET', key, ARGV[at + 3], 'PX', ARGV[at + 4])
  end
end
