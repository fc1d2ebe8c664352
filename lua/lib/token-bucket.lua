-- The twin of src/policies/token-bucket.ts, where the arithmetic is explained.
-- Packed: deficit, time, quota: 8 bytes each; the scale's power of ten: 1.
define[1] = function()
  local function deficit_at(state, quota, time)
    local elapsed = time - state.at
    if elapsed < 0 then elapsed = 0 end
    local deficit = state.deficit - math.floor(elapsed * quota / state.scale)
    if deficit < 0 then return 0 end
    return deficit
  end

  local function weigh(state, limit, cost)
    return math.ceil(cost * limit.window / state.scale)
  end

  local function room(state, limit)
    return math.floor(limit.capacity * limit.window / state.scale)
  end

  return {
    open = function(stored, limit, now)
      local scale = 1
      while limit.capacity * limit.window / scale > 562949953421312 do scale = scale * 10 end
      if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale } end

      local state = stored
      if type(stored) == 'string' then
        local deficit, at, quota, power = struct.unpack('<dddB', stored)
        state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
      end
      if state.at > now + limit.window then
        state.at = now
        state.mended = true
      end
      if deficit_at(state, state.quota, now) == 0 then
        state.deficit = 0
        state.at = math.max(state.at, now)
      end
      if state.quota ~= limit.quota then
        state.deficit = deficit_at(state, math.min(state.quota, limit.quota), now)
        state.at = math.max(state.at, now)
        state.quota = limit.quota
        state.mended = true
      end
      if state.scale ~= scale then
        state.deficit = math.ceil(state.deficit * state.scale / scale)
        state.scale = scale
        state.mended = true
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      local spare = room(state, limit) - weigh(state, limit, cost)
      if deficit_at(state, limit.quota, now) <= spare then return now end
      local time = state.at + math.ceil((state.deficit - spare) * state.scale / limit.quota)
      while deficit_at(state, limit.quota, time) > spare do time = time + 1 end
      return time
    end,

    remaining = function(state, limit, now)
      local spare = room(state, limit) - deficit_at(state, limit.quota, now)
      return math.max(0, math.floor(spare * state.scale / limit.window))
    end,

    charge = function(state, limit, now, cost)
      state.deficit = math.min(9007199254740991, deficit_at(state, limit.quota, now) + weigh(state, limit, cost))
      state.at = math.max(state.at, now)
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at + limit.window <= now then return end
      state.deficit = math.max(0, deficit_at(state, limit.quota, now) - weigh(state, limit, cost))
      state.at = math.max(state.at, now)
    end,

    expires = function(state, limit)
      if limit.quota == 0 then return state.at + limit.window end
      return state.at + math.ceil(state.deficit * state.scale / limit.quota)
    end,

    pack = function(state, limit)
      local expires = state.at + limit.window
      if limit.quota > 0 then expires = state.at + math.ceil(state.deficit * state.scale / limit.quota) end
      local power = math.floor(math.log10(state.scale) + 0.5)
      return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires
    end,
  }
end
