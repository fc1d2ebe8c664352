-- The twin of src/policies/concurrency.ts, where the arithmetic is explained. Leases are a sorted set of their own, by when each
-- runs out; the record in the partition keeps how long a slot is held: 8 bytes.
define[6] = function()
  local unknown_hold, smoothing = 1000000, 8

  local function count(state, now)
    return redis.call('ZCOUNT', state.key, string.format('(%.0f', now), '+inf')
  end

  -- Which members hold a slot already: their scores, or false.
  local function scores(state, limit, now)
    local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
    for index = 1, #found do
      local score = found[index] and tonumber(found[index])
      found[index] = score and score > now and score or false
    end
    return found
  end

  local function add(state, limit, now)
    local arguments = {}
    for _, member in ipairs(limit.extra) do
      arguments[#arguments + 1] = string.format('%.0f', now + limit.window)
      arguments[#arguments + 1] = member
    end
    redis.call('ZADD', state.key, unpack(arguments))
    state.changed = true
  end

  local function expires(state, _, now)
    local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
    if #last == 0 then return now end
    return math.max(now, tonumber(last[2]))
  end

  return {
    open = function(stored, limit, now)
      local state = stored
      if not stored then
        state = { held = 0, key = limit.own_key }
      elseif type(stored) == 'string' then
        state = { held = struct.unpack('<d', stored), key = limit.own_key }
      end
      -- A clock that stepped forward and back left leases that would outlive every process.
      if limit.commit and expires(state, limit, now) > now + 2 * limit.window then
        local ahead = redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now + 2 * limit.window), '+inf')
        for _, member in ipairs(ahead) do
          redis.call('ZADD', state.key, string.format('%.0f', now + limit.window), member)
        end
        state.mended = true
      end
      return state
    end,

    needs = function(state, limit, now)
      local needed = 0
      for _, score in ipairs(scores(state, limit, now)) do
        if not score then needed = needed + 1 end
      end
      return needed
    end,

    earliest = function(state, limit, now, cost)
      local held = count(state, now)
      local excess = held + cost - limit.quota
      if excess <= 0 then return now end
      local expiry = now + 1
      local nth = redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT',
        math.min(excess, held) - 1, 1)
      if #nth > 0 then expiry = tonumber(nth[2]) end
      local hold = state.held == 0 and unknown_hold or state.held
      return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held))))
    end,

    remaining = function(state, limit, now)
      return math.max(0, limit.quota - count(state, now))
    end,

    charge = function(state, limit, now)
      local added = 0
      for index, score in ipairs(scores(state, limit, now)) do
        if not score then added = added + 2 ^ (index - 1) end
      end
      add(state, limit, now)
      return added
    end,

    refund = function(state, limit, now, charged_at, cost, added)
      for index, member in ipairs(limit.extra) do
        if math.floor(added / 2 ^ (index - 1)) % 2 == 1 then redis.call('ZREM', state.key, member) end
      end
      state.changed = true
    end,

    release = function(state, limit, now, charged_at)
      local held = false
      for _, score in ipairs(scores(state, limit, now)) do held = held or score ~= false end
      redis.call('ZREM', state.key, unpack(limit.extra))
      state.changed = true
      if not held then return end
      local duration = math.max(1, now - charged_at)
      if state.held == 0 then
        state.held = duration
      else
        state.held = math.max(1, state.held + math.floor((duration - state.held) / smoothing))
      end
    end,

    renew = add,

    expires = expires,

    pack = function(state, limit, now)
      if state.changed then redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now)) end
      local ends = expires(state, limit, now)
      if ends > now then
        redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((ends - now) / 1000)))
      end
      return struct.pack('<d', state.held), ends
    end,
  }
end
