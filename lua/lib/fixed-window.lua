-- The twin of src/policies/fixed-window.ts. Packed: start, used: 8 bytes each.
define[4] = function()
  return {
    open = function(stored, limit, now)
      local state = stored
      if type(stored) == 'string' then
        local start, used = struct.unpack('<dd', stored)
        state = { start = start, used = used }
      end
      if not state or state.start + limit.window <= now then return { start = now, used = 0 } end
      if state.start > now + limit.window then
        state.start = now
        state.mended = true
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      if state.used + cost <= limit.quota then return now end
      return state.start + limit.window
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - state.used)
    end,

    charge = function(state, limit, now, cost)
      if state.used == 0 then state.start = math.max(state.start, now) end
      state.used = state.used + cost
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at < state.start or charged_at + limit.window <= now then return end
      state.used = state.used - math.min(state.used, cost)
    end,

    expires = function(state, limit, now)
      if state.used == 0 then return now end
      return state.start + limit.window
    end,

    pack = function(state, limit, now)
      local expires = now
      if state.used > 0 then expires = state.start + limit.window end
      return struct.pack('<dd', state.start, state.used), expires
    end,
  }
end
