-- The twin of the second half of src/policies/standing.ts. A client's standing is a hash of its own beside its partition, which a
-- decision only reads: what people decided, in `s` until when it is suspended (-1 for good), `t` and `u` its tier and until when (0
-- for good), `a:<scope>` what is approved, and in `b` what its conduct came to. Of a query: enforce (1), answered (2) and the steps that
-- are idle (from 4 on), scope, half-life, share, the ladder.
define[11] = function()
  local FIRST_RUNG = 5

  local function is_suspended(state, now)
    return state.suspended_until == -1 or state.suspended_until > now
  end

  local function taken(state, limit)
    local step = state.step
    while step > 0 and math.floor(limit.extra[1] / 2 ^ (step + 1)) % 2 == 1 do step = step - 1 end
    return step
  end

  local function refuses(state, limit)
    local enforce, answered = limit.extra[1] % 2 == 1, math.floor(limit.extra[1] / 2) % 2 == 1
    local step = taken(state, limit)
    return enforce and (step >= 3 or (step == 2 and not answered))
  end

  return {
    open = function(stored, limit, now)
      if type(stored) == 'table' then return stored end
      local query = limit.extra
      local known = redis.call('HMGET', limit.own_key, 's', 't', 'u', 'b', 'a:' .. string.format('%.0f', query[2]))
      local standing = read_score(known[4])
      local state = {
        suspended_until = tonumber(known[1] or 0),
        tier = tonumber(known[2] or 0),
        unapproved = query[2] ~= 0 and not known[5],
        signals = standing and standing.signals or 0,
      }
      local tier_until = tonumber(known[3] or 0)
      if tier_until ~= 0 and tier_until <= now then state.tier = 0 end
      state.score, state.step = score_now(standing, query, FIRST_RUNG, query[3], now)
      return state
    end,

    -- In thousandths.
    share_left = function(state, limit)
      if limit.extra[1] % 2 == 1 and taken(state, limit) >= 1 then return limit.extra[4] end
      return 1000
    end,

    earliest = function(state, limit, now)
      if is_suspended(state, now) or state.unapproved or refuses(state, limit) then return math.huge end
      return now
    end,

    remaining = function(state)
      local signals = state.score == 0 and 0 or state.signals
      return (state.score * 2 ^ 20 + signals) * 8 + state.step
    end,

    expires = function(state, limit, now)
      local suspended, told = is_suspended(state, now), state.tier
      if suspended then told = math.max(0, math.ceil((state.suspended_until - now) / 1000)) end
      return now + told * 4 + (suspended and 1 or 0) + (state.unapproved and 2 or 0)
    end,

    pack = function()
      return '', 0
    end,
  }
end

-- Leaves of a client's own quotas what its standing leaves: a part, but never less than the request needs.
local function throttle(entry, share)
  if entry.kind > 4 or entry.role ~= 0 then return end
  for _, what in ipairs({ 'quota', 'capacity' }) do
    local part = math.max(1, entry.cost, math.floor(entry[what] * share / 1000))
    entry[what] = math.min(entry[what], part)
  end
end
