-- The twin of src/policies/first-minutes.ts. Packed: start, used: 8 bytes each. The capacity is when it is granted anew.
define[5] = function()
  return {
    open = function(stored, limit, now)
      local state = stored
      if type(stored) == 'string' then
        local start, used = struct.unpack('<dd', stored)
        state = { start = start, used = used, granted = true }
      end
      if not state or state.start + limit.capacity <= now then return { start = now, used = 0 } end
      if state.start > now + limit.capacity then
        state.start = now
        state.mended = true
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      if cost > limit.quota then return math.huge end
      if now < state.start + limit.window and state.used + cost <= limit.quota then return now end
      return state.start + limit.capacity
    end,

    remaining = function(state, limit, now)
      if now >= state.start + limit.window then return 0 end
      return math.max(0, limit.quota - state.used)
    end,

    charge = function(state, limit, now, cost)
      state.granted = true
      state.used = state.used + cost
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at < state.start or charged_at + limit.window <= now then return end
      state.used = state.used - math.min(state.used, cost)
    end,

    expires = function(state, limit, now)
      if not state.granted then return now end
      return state.start + limit.capacity
    end,

    pack = function(state, limit, now)
      if not state.granted then return '', now end
      return struct.pack('<dd', state.start, state.used), state.start + limit.capacity
    end,
  }
end
