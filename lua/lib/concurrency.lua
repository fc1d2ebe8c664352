-- The twin of src/policies/concurrency.ts, where the arithmetic is explained. Leases are a sorted set of their own, by when each
-- runs out; the record in the partition keeps how long a slot is held, and when one was last taken or given back: 8 bytes each.
-- A charge whose `added` is 1 is for slots that nobody gives back.
define[6] = function()
  local unknown_hold, smoothing = 1000000, 8

  local function count(state)
    if state.absent then return 0 end
    return redis.call('ZCOUNT', state.key, state.live, '+inf')
  end

  -- Which members hold a slot already: their scores, or false.
  local function scores(state, limit, now)
    if #limit.extra == 0 then return {} end
    local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
    for index = 1, #found do
      local score = not state.absent and found[index] and tonumber(found[index])
      found[index] = score and score > now and score or false
    end
    return found
  end

  -- When each lease runs out, the soonest first. One that a clock which stepped forward and back left behind counts as from now.
  local function ends_of(state, limit, now)
    local found = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES')
    local ends = {}
    for index = 2, #found, 2 do
      local score = tonumber(found[index])
      ends[#ends + 1] = score > now + 2 * limit.window and now + limit.window or score
    end
    table.sort(ends)
    return ends
  end

  local function add(state, limit, now)
    local arguments = {}
    for _, member in ipairs(limit.extra) do
      arguments[#arguments + 1] = string.format('%.0f', now + limit.window)
      arguments[#arguments + 1] = member
    end
    if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
  end

  local function last_of(state)
    if state.absent then return 0 end
    local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
    return #last > 0 and tonumber(last[2]) or 0
  end

  local function expires(state, limit, now)
    if state.ahead then
      local ends = ends_of(state, limit, now)
      return ends[#ends]
    end
    return math.max(now, last_of(state))
  end

  return {
    open = function(stored, limit, now)
      local state = stored
      if not stored then
        state = { held = 0, changed_at = 0 }
      elseif type(stored) == 'string' then
        local held, changed_at = struct.unpack('<dd', stored)
        state = { held = held, changed_at = changed_at }
      end
      state.key = limit.own_key
      state.live = string.format('(%.0f', now)
      -- Leases without their record are what an expiry or an eviction left behind: they count nothing.
      state.absent = not stored and not limit.commit
      if not stored and limit.commit then redis.call('UNLINK', state.key) end
      state.ahead = last_of(state) > now + 2 * limit.window
      if limit.commit then
        -- What has run out stays so, whatever the clock shows next.
        if redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now)) > 0 then state.mended = true end
        if state.ahead then
          local ahead = redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now + 2 * limit.window), '+inf')
          for _, member in ipairs(ahead) do
            redis.call('ZADD', state.key, string.format('%.0f', now + limit.window), member)
          end
          state.ahead = false
          state.mended = true
        end
      end
      if state.changed_at > 0 and (state.changed_at + limit.window <= now or state.changed_at > now + limit.window) then
        state.held, state.changed_at = 0, 0
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
      local held = count(state)
      local excess = held + cost - limit.quota
      if excess <= 0 then return now end
      local expiry = now + 1
      if state.ahead then
        expiry = ends_of(state, limit, now)[math.min(excess, held)] or expiry
      elseif held > 0 then
        expiry = tonumber(redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT',
          math.min(excess, held) - 1, 1)[2])
      end
      if limit.added == 1 then return expiry end
      local hold = state.held == 0 and unknown_hold or state.held
      return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held)), now - state.changed_at))
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - count(state))
    end,

    charge = function(state, limit, now)
      local added = 0
      for index, score in ipairs(scores(state, limit, now)) do
        if not score then added = added + 2 ^ (index - 1) end
      end
      add(state, limit, now)
      state.changed_at = now
      return added
    end,

    refund = function(state, limit, now, charged_at, cost, added)
      for index, member in ipairs(limit.extra) do
        if math.floor(added / 2 ^ (index - 1)) % 2 == 1 then redis.call('ZREM', state.key, member) end
      end
    end,

    release = function(state, limit, now, charged_at)
      if #limit.extra == 0 or redis.call('ZREM', state.key, unpack(limit.extra)) == 0 then return end
      local duration = math.max(1, now - charged_at)
      if state.held == 0 then
        state.held = duration
      else
        state.held = math.max(1, state.held + math.floor((duration - state.held) / smoothing))
      end
      state.changed_at = now
    end,

    renew = add,

    expires = expires,

    pack = function(state, limit, now)
      local ends = expires(state, limit, now)
      if ends > now then
        -- By the whole second, as its record.
        local second = math.ceil(ends / 1000000)
        redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
      end
      if state.held > 0 then ends = math.max(ends, state.changed_at + limit.window) end
      return struct.pack('<dd', state.held, state.changed_at), ends
    end,
  }
end
