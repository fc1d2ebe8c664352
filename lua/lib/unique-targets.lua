-- The twin of src/policies/unique-targets.ts, where the arithmetic is explained. Targets are a sorted set of their own, by when
-- each was touched last; the record in the partition only keeps the partition alive: 1 byte.
define[8] = function()
  local function count(state)
    if state.absent then return 0 end
    return redis.call('ZCOUNT', state.key, state.live, '+inf')
  end

  -- When the members were touched last, or false; within the window.
  local function touched(state, limit, now)
    if #limit.extra == 0 then return {} end
    local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
    for index = 1, #found do
      local score = not state.absent and found[index] and tonumber(found[index])
      found[index] = score and score + limit.window > now and score or false
    end
    return found
  end

  local function newest(state)
    if state.absent then return 0 end
    local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
    return #last > 0 and tonumber(last[2]) or 0
  end

  local function expires(state, limit, now)
    if state.ahead then return now + limit.window end
    return math.max(now, newest(state) + limit.window)
  end

  return {
    open = function(stored, limit, now)
      local state = type(stored) == 'table' and stored or {}
      state.key = limit.own_key
      state.live = string.format('(%.0f', now - limit.window)
      -- Targets without their record are what an expiry or an eviction left behind: they count nothing.
      state.absent = not stored and not limit.commit
      if not stored and limit.commit then redis.call('UNLINK', state.key) end
      state.ahead = newest(state) > now + limit.window
      if limit.commit then
        -- What has left the window stays so, whatever the clock shows next.
        local gone = redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now - limit.window))
        if gone > 0 then state.mended = true end
        if state.ahead then
          for _, target in ipairs(redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now), '+inf')) do
            redis.call('ZADD', state.key, string.format('%.0f', now), target)
          end
          state.ahead = false
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
      local live = count(state)
      if live + cost <= limit.quota then return now end
      local room = math.max(#limit.extra, cost)
      if room > limit.quota then return math.huge end
      local ours, known = {}, 0
      for index, score in ipairs(touched(state, limit, now)) do
        if score then
          ours[limit.extra[index]] = true
          known = known + 1
        end
      end
      local excess = live - known + room - limit.quota
      local oldest = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT', 0, excess + known)
      for index = 1, #oldest, 2 do
        if not ours[oldest[index]] then
          excess = excess - 1
          if excess <= 0 then
            local at = tonumber(oldest[index + 1])
            return (state.ahead and math.min(at, now) or at) + limit.window
          end
        end
      end
      return now
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - count(state))
    end,

    charge = function(state, limit, now)
      local at = string.format('%.0f', math.max(now, newest(state)))
      local added, arguments = 0, {}
      for index, score in ipairs(touched(state, limit, now)) do
        if not score then added = added + 2 ^ (index - 1) end
        arguments[#arguments + 1] = at
        arguments[#arguments + 1] = limit.extra[index]
      end
      if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
      return added
    end,

    refund = function(state, limit, now, charged_at, cost, added)
      for index, score in ipairs(touched(state, limit, now)) do
        if score == charged_at and math.floor(added / 2 ^ (index - 1)) % 2 == 1 then
          redis.call('ZREM', state.key, limit.extra[index])
        end
      end
    end,

    expires = expires,

    pack = function(state, limit, now)
      local ends = expires(state, limit, now)
      if ends > now then
        -- By the whole second, as its record.
        local second = math.ceil(ends / 1000000)
        redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
      end
      return '.', ends
    end,
  }
end
