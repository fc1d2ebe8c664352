-- The twin of src/policies/unique-targets.ts, where the arithmetic is explained. Targets are a sorted set of their own, by when
-- each was touched last; the record in the partition only keeps the partition alive: 1 byte.
define[8] = function()
  local function since(limit, now)
    return string.format('(%.0f', now - limit.window)
  end

  local function count(state, limit, now)
    return redis.call('ZCOUNT', state.key, since(limit, now), '+inf')
  end

  -- When the members were touched last, or false; within the window.
  local function touched(state, limit, now)
    if #limit.extra == 0 then return {} end
    local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
    for index = 1, #found do
      local score = found[index] and tonumber(found[index])
      found[index] = score and score + limit.window > now and score or false
    end
    return found
  end

  local function newest(state)
    local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
    return #last > 0 and tonumber(last[2]) or nil
  end

  local function expires(state, limit, now)
    local last = newest(state)
    if not last then return now end
    return math.max(now, last + limit.window)
  end

  return {
    open = function(stored, limit, now)
      local state = stored
      if type(stored) ~= 'table' then state = { key = limit.own_key } end
      if limit.commit then
        local last = newest(state)
        if last and last > now + limit.window then
          for _, target in ipairs(redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now + limit.window), '+inf')) do
            redis.call('ZADD', state.key, string.format('%.0f', now), target)
          end
          state.mended = true
        end
      end
      return state
    end,

    needs = function(state, limit, now)
      local needed = 0
      for _, score in ipairs(touched(state, limit, now)) do
        if not score then needed = needed + 1 end
      end
      return needed
    end,

    earliest = function(state, limit, now, cost)
      local live = count(state, limit, now)
      if live + cost <= limit.quota then return now end
      local asked = math.max(#limit.extra, cost)
      if asked > limit.quota then return math.huge end
      local ours, known = {}, 0
      for index, score in ipairs(touched(state, limit, now)) do
        if score then
          ours[limit.extra[index]] = true
          known = known + 1
        end
      end
      local excess = live - known + asked - limit.quota
      if excess <= 0 then return now end
      local oldest = redis.call('ZRANGEBYSCORE', state.key, since(limit, now), '+inf', 'WITHSCORES', 'LIMIT', 0, excess + known)
      for index = 1, #oldest, 2 do
        if not ours[oldest[index]] then
          excess = excess - 1
          if excess == 0 then return tonumber(oldest[index + 1]) + limit.window end
        end
      end
      return now
    end,

    remaining = function(state, limit, now)
      return math.max(0, limit.quota - count(state, limit, now))
    end,

    charge = function(state, limit, now)
      local added, arguments = 0, {}
      for index, score in ipairs(touched(state, limit, now)) do
        if not score then added = added + 2 ^ (index - 1) end
        arguments[#arguments + 1] = string.format('%.0f', now)
        arguments[#arguments + 1] = limit.extra[index]
      end
      if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
      state.changed = true
      return added
    end,

    refund = function(state, limit, now, charged_at, cost, added)
      for index, score in ipairs(touched(state, limit, now)) do
        if score == charged_at and math.floor(added / 2 ^ (index - 1)) % 2 == 1 then
          redis.call('ZREM', state.key, limit.extra[index])
        end
      end
      state.changed = true
    end,

    expires = expires,

    pack = function(state, limit, now)
      if state.changed then
        redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now - limit.window))
      end
      local ends = expires(state, limit, now)
      if ends > now then
        redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((ends - now) / 1000)))
      end
      return '.', ends
    end,
  }
end
