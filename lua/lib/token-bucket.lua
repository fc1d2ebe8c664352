-- The twin of src/policies/token-bucket.ts, where the arithmetic is explained.
-- Packed: deficit, time, quota: 8 bytes each; the scale's power of ten: 1.
define[1] = function()
  local largest_weight, most = 562949953421312, 9007199254740991
  local just_below, just_above = 1 - 2 ^ -51, 1 + 2 ^ -51
  local longest = 366 * 24 * 3600000000

  local function scale_of(limit)
    local scale = 1
    while math.max(limit.capacity, limit.quota) * limit.window / scale > largest_weight do scale = scale * 10 end
    return scale
  end

  local function weight_of(limit, scale)
    return math.ceil(limit.window / scale)
  end

  local function deficit_at(state, quota, time)
    local paid = math.max(0, time - state.at) * quota
    if state.scale ~= 1 then paid = math.floor(paid / state.scale * just_below) end
    return math.max(0, state.deficit - paid)
  end

  local function reaches(state, spare)
    if state.deficit <= spare then return state.at end
    local rounding = 1
    if state.scale ~= 1 then rounding = just_above end
    local time = state.at + math.ceil((state.deficit - spare) * state.scale / state.quota * rounding)
    if not (time <= most) then return math.huge end
    while deficit_at(state, state.quota, time) > spare do time = time + 1 end
    while deficit_at(state, state.quota, time - 1) <= spare do time = time - 1 end
    return time
  end

  local function is_full(state, now)
    return deficit_at(state, state.quota, now) == 0 or (state.quota == 0 and state.at + longest <= now)
  end

  local function rescale(state, limit, scale)
    local before, after = weight_of(limit, state.scale), weight_of(limit, scale)
    local units = math.floor(state.deficit / before)
    local rest = state.deficit - units * before
    state.deficit = units * after + math.ceil(rest * after / before * just_above)
    state.scale = scale
  end

  local function expires(state)
    if state.quota == 0 and state.deficit > 0 then return state.at + longest end
    return math.min(most, reaches(state, 0))
  end

  return {
    open = function(stored, limit, now)
      if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale_of(limit) } end

      local state = stored
      if type(stored) == 'string' then
        local deficit, at, quota, power = struct.unpack('<dddB', stored)
        state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
      end
      if state.at > now + limit.window then
        state.at = now
        state.mended = true
      end
      local quota, scale = state.quota, state.scale
      if not limit.correcting then quota, scale = limit.quota, scale_of(limit) end
      if is_full(state, now) then
        return { deficit = 0, at = math.max(state.at, now), quota = quota, scale = scale, mended = state.mended }
      end
      if state.quota ~= quota then
        state.deficit = deficit_at(state, math.min(state.quota, quota), now)
        state.at = math.max(state.at, now)
        state.quota = quota
        state.mended = true
      end
      if state.scale < scale then
        rescale(state, limit, scale)
        state.mended = true
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      local spare = (limit.capacity - cost) * weight_of(limit, state.scale)
      if deficit_at(state, state.quota, now) <= spare then return now end
      return reaches(state, spare)
    end,

    remaining = function(state, limit, now)
      local weight = weight_of(limit, state.scale)
      return math.max(0, math.floor((limit.capacity * weight - deficit_at(state, state.quota, now)) / weight))
    end,

    charge = function(state, limit, now, cost)
      local weight = cost * weight_of(limit, state.scale)
      state.deficit = math.min(most, deficit_at(state, state.quota, now) + weight)
      state.at = math.max(state.at, now)
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at + limit.window <= now then return end
      local weight = cost * weight_of(limit, state.scale)
      state.deficit = math.max(0, deficit_at(state, state.quota, now) - weight)
      state.at = math.max(state.at, now)
    end,

    room = function(state, limit)
      return {
        refills = true,
        deficit = state.deficit,
        at = state.at,
        quota = state.quota,
        scale = state.scale,
        weight = weight_of(limit, state.scale),
        capacity = limit.capacity,
      }
    end,

    expires = expires,

    pack = function(state)
      local power = math.floor(math.log10(state.scale) + 0.5)
      return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires(state)
    end,
  }
end
