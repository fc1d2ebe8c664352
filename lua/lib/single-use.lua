-- The twin of src/policies/single-use.ts. A proof is a key of its own beside its client's, which holds who used it up; it leaves
-- no record in the partition.
define[10] = function()
  local function is_spent(state, limit)
    return state.holder and state.holder ~= limit.extra[2]
  end

  return {
    open = function(stored, limit)
      return { holder = redis.call('GET', limit.own_key) }
    end,

    earliest = function(state, limit, now)
      if is_spent(state, limit) then return math.huge end
      return now
    end,

    remaining = function(state, limit)
      return is_spent(state, limit) and 0 or 1
    end,

    charge = function(state, limit)
      state.holder = limit.extra[2]
      redis.call('SET', limit.own_key, state.holder, 'PX', string.format('%.0f', math.ceil(limit.window / 1000)))
      return 0
    end,

    refund = function(state, limit)
      if not is_spent(state, limit) then redis.call('UNLINK', limit.own_key) end
    end,

    expires = function(state, limit, now)
      return now
    end,

    pack = function()
      return '', 0
    end,
  }
end
