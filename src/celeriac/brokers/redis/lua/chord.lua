-- What scripts do with chords; stands in front of those that name it (scripts.py).
--
-- A chord is seven keys in a row, Celery's but for the last: its size (.s); how many members more it waits for (.t); the
-- values of those that have joined (.j, a zset by place or a list); who they are, "<id>:<place>" (.d); the token of the
-- one who is about to send the body, or "done" (.c); the form of the header (the saved group); the body
-- (celeriac:chord:<id>). ``looks`` is celeriac:chords: chord → epoch seconds of the sweeper's next look. ``args`` are four
-- in a row: milliseconds that a token lasts, milliseconds that "done" lasts, "1" = .j is a zset, start of our tokens.
--
-- The token of a delivery is that of a chord only as long as the delivery is leased, which unacked_index (``index``)
-- tells: but not on a server that has no deliveries. There it is written with "elsewhere:" in front, and lasts its time.
--
-- A full server that cannot be told that a script may run all the same (scripts.py) lets it write once it has removed
-- something. With ``drains`` that is nothing.

local function chord_tools(looks, index, args, from, drains)
  local call, pcall = redis.call, redis.pcall
  local token_ms, done_ms = tonumber(args[from]), args[from + 1]
  local ordered, ours = args[from + 2] == '1', args[from + 3]
  local time = call('TIME')
  local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
  local spoiled = type(pcall('ZCARD', looks)) == 'table'
  if drains and not spoiled then call('ZREM', looks, '') end
  local tools = {}

  local function keep(key, value, life)
    if life == '' then call('SET', key, value) else call('SET', key, value, 'PX', life) end
  end

  -- When the sweeper is to look at it next; "NX": unless that is known, "LT": unless that is sooner.
  function tools.look(chord, seconds, unless)
    local score = string.format('%.6f', now + seconds)
    if unless then call('ZADD', looks, unless, score, chord.id) else call('ZADD', looks, score, chord.id) end
  end

  -- The chord whose keys start with the one of that number. Its field ``wrong`` names a key of another type.
  function tools.read(first, id)
    local key = { size = KEYS[first], grown = KEYS[first + 1], values = KEYS[first + 2], members = KEYS[first + 3],
      token = KEYS[first + 4], shape = KEYS[first + 5], body = KEYS[first + 6] }
    local chord = { id = id, key = key, wrong = spoiled and looks or nil }
    local function ask(command, name)
      local reply = pcall(command, key[name])
      if type(reply) == 'table' then chord.wrong = key[name] end
      return reply
    end
    local size, grown = ask('GET', 'size'), ask('GET', 'grown')
    chord.token, chord.length = ask('GET', 'token'), ask('STRLEN', 'body')
    ask('SCARD', 'members')
    ask('STRLEN', 'shape')
    chord.kind = call('TYPE', key.values).ok
    if chord.kind ~= 'none' and chord.kind ~= 'zset' and chord.kind ~= 'list' then chord.wrong = key.values end
    if not chord.wrong then
      if grown and not string.find(grown, '^-?%d+$') then chord.wrong = key.grown end
      chord.size, chord.grown = size and tonumber(size) or nil, grown and tonumber(grown) or 0
      chord.opened = chord.length > 0 or call('EXISTS', key.body) == 1
    end
    return chord
  end

  -- The error for a chord with a key of another type, nil for any other.
  function tools.error(chord)
    return chord.wrong and redis.error_reply('WRONGTYPE the key "' .. chord.wrong .. '" is of another type')
  end

  -- Another one, or one that is done, begins anew; else members that came too early stay, and so does the body that they
  -- brought when there is none now.
  function tools.open(chord, size, life, body, shape)
    local key = chord.key
    if chord.size and chord.size == tonumber(size) and chord.token ~= 'done'
      and (body == '' or call('GET', key.body) == body) and (call('GET', key.shape) or '') == shape then
      return -- the call was repeated, or is late
    end
    local anew = chord.size or chord.token
    if anew then
      call('DEL', key.token, key.values, key.members, key.shape)
      chord.kind, chord.token = 'none', false
    end
    keep(key.size, size, life)
    if anew or body ~= '' or chord.length == 0 then
      keep(key.body, body, life)
      chord.length = #body
    end
    if shape ~= '' then keep(key.shape, shape, life) end
    for _, name in pairs({ key.grown, key.values, key.members, key.shape, key.body }) do
      if life == '' then call('PERSIST', name) else call('PEXPIRE', name, life) end
    end
    tools.look(chord, token_ms / 1000)
    chord.size, chord.opened = tonumber(size), true
  end

  -- Adds members, each once. ``bodied``: one of them came with ``body``. Says whether the chord is complete now, were it
  -- before.
  function tools.join(chord, members, values, grows, bodied, body, life)
    if chord.token == 'done' or not (chord.size or chord.opened or bodied) then return false end
    local key, seen, used, grown = chord.key, {}, {}, 0
    if chord.kind == 'none' then chord.kind = ordered and 'zset' or 'list' end
    local sorted = chord.kind == 'zset'
    for i = 1, #members, 1000 do
      local last = math.min(i + 999, #members)
      local joined = call('SMISMEMBER', key.members, unpack(members, i, last))
      local there = sorted and call('ZMSCORE', key.values, unpack(values, i, last))
      local names, entries = {}, {}
      for m = i, last do
        local member, value = members[m], values[m]
        if joined[m - i + 1] == 0 and not seen[member] then
          seen[member] = true
          names[#names + 1] = member
          grown = grown + (grows[m] or 0)
          if sorted then
            -- A zset keeps equal values of two places once, and the chord would never be complete: blanks tell them
            -- apart.
            if there[m - i + 1] or used[value] then
              repeat value = value .. ' ' until not used[value] and not call('ZSCORE', key.values, value)
            end
            used[value] = true
            entries[#entries + 1] = string.match(member, '^.*:(.*)$')
          end
          entries[#entries + 1] = value
        end
      end
      if names[1] then
        call('SADD', key.members, unpack(names))
        call(sorted and 'ZADD' or 'RPUSH', key.values, unpack(entries))
      end
    end
    if grown ~= 0 then chord.grown = call('INCRBY', key.grown, grown) end
    if chord.length == 0 and body ~= '' then
      keep(key.body, body, life)
      chord.length, chord.opened = #body, true
    end
    if life ~= '' then
      for _, name in pairs(key) do
        if name ~= key.token then call('PEXPIRE', name, life) end
      end
    end
    if chord.opened then tools.look(chord, token_ms / 1000, 'NX') end
    return tools.complete(chord)
  end

  function tools.complete(chord)
    if not chord.size or chord.token == 'done' then return false end
    local ready = chord.kind == 'none' and 0 or call(chord.kind == 'list' and 'LLEN' or 'ZCARD', chord.key.values)
    return ready >= chord.size + chord.grown
  end

  -- A complete chord that is not taken now.
  function tools.leave(chord)
    if chord.opened then tools.look(chord, token_ms / 1000, 'LT') end
  end

  local function is_ours(token)
    return string.sub(token, 1, #ours) == ours
  end

  local function holds(holder, token)
    return holder == token or holder == 'elsewhere:' .. token
  end

  -- Gives a complete chord to ``token``; false when another one holds it.
  function tools.take(chord, token)
    local holder = chord.token
    if holder and not holds(holder, token) and not (is_ours(holder) and not pcall('ZSCORE', index, holder)) then
      tools.leave(chord)
      return false
    end
    chord.token = token
    if is_ours(token) and type(pcall('ZSCORE', index, token)) ~= 'string' then chord.token = 'elsewhere:' .. token end
    call('SET', chord.key.token, chord.token, 'PX', token_ms)
    if chord.opened then tools.look(chord, token_ms / 1000) end
    return true
  end

  -- Whether ``token`` holds a complete chord: also when its time is over, as long as nobody else took the chord.
  function tools.held(chord, token)
    if chord.token then return holds(chord.token, token) end
    return tools.complete(chord)
  end

  function tools.close(chord)
    local key = chord.key
    call('DEL', key.size, key.grown, key.values, key.members, key.body)
    call('SET', key.token, 'done', 'PX', done_ms)
    call('ZREM', looks, chord.id)
    chord.token, chord.size, chord.kind, chord.opened = 'done', nil, 'none', false
  end

  -- Nothing is left that a sweeper could do.
  function tools.forget(chord)
    call('DEL', chord.key.body)
    call('ZREM', looks, chord.id)
  end

  return tools
end

