-- The twin of src/policies/sliding-log.ts. Its entries are a list of their own, <time: 7 bytes> <count: 5>, oldest first;
-- the record in the partition keeps the sum and the newest time, so that most decisions read few entries or none.
define[3] = function()
  local chunk, most_count = 32, 1099511627775

  local function entry_at(bytes)
    return struct.unpack('<I7I5', bytes)
  end

  local function newest_of(state)
    local bytes = redis.call('LINDEX', state.key, -1)
    if bytes then return (entry_at(bytes)) end
    return 0
  end

  -- Walks the entries from the oldest that still counts, until `visit` returns something.
  local function walk(state, visit)
    local from = state.gone
    while true do
      local entries = redis.call('LRANGE', state.key, from, from + chunk - 1)
      for index = 1, #entries do
        local at, count = entry_at(entries[index])
        if state.future and at > state.future then at = state.future end
        local found = visit(at, count)
        if found then return found end
      end
      if #entries < chunk then return nil end
      from = from + chunk
    end
  end

  -- A clock that stepped forward and back left times behind that are still to come: they count as now.
  local function mend_future(state, limit, now)
    state.future = now
    state.newest = now
    if not limit.commit then return end
    local index = -1
    while true do
      local bytes = redis.call('LINDEX', state.key, index)
      if not bytes then break end
      local at, count = entry_at(bytes)
      if at <= now then break end
      redis.call('LSET', state.key, index, struct.pack('<I7I5', now, count))
      index = index - 1
    end
    state.mended = true
  end

  local function expires(state, limit, now)
    if state.total == 0 then return now end
    return state.newest + limit.window
  end

  return {
    open = function(stored, limit, now)
      local state = stored
      if not stored then
        state = { total = 0, newest = 0, gone = 0, key = limit.own_key, fresh = true }
      elseif type(stored) == 'string' then
        local total, newest = struct.unpack('<dI7', stored)
        state = { total = total, newest = newest, gone = 0, key = limit.own_key }
      end
      if state.total == 0 then return state end
      local fresh = { total = 0, newest = 0, gone = 0, key = limit.own_key, fresh = true }
      -- The list has expired, while its record is kept alive by the others of the partition.
      if state.newest + limit.window <= now then return fresh end
      if state.newest > now + limit.window then mend_future(state, limit, now) end
      local live = walk(state, function(at, count)
        if at + limit.window > now then return true end
        state.gone = state.gone + 1
        state.total = state.total - count
        state.mended = true
      end)
      -- The list was evicted, and its record was not: what it counted is not known any more.
      if not live then
        fresh.mended = true
        return fresh
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      local excess = state.total + cost - limit.quota
      if excess <= 0 then return now end
      return walk(state, function(at, count)
        excess = excess - count
        if excess <= 0 then return at + limit.window end
      end) or now
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - state.total)
    end,

    charge = function(state, limit, now, cost)
      -- A list without its record is what an eviction left behind: it counts nothing.
      if state.fresh then redis.call('UNLINK', state.key) end
      state.fresh = nil
      local newest = redis.call('LINDEX', state.key, -1)
      local at, count = 0, 0
      if newest and state.total > 0 then at, count = entry_at(newest) end
      if at >= now then
        local sum = math.min(most_count, count + cost)
        redis.call('LSET', state.key, -1, struct.pack('<I7I5', at, sum))
        state.total = state.total + sum - count
      else
        redis.call('RPUSH', state.key, struct.pack('<I7I5', now, cost))
        state.newest = now
        state.total = state.total + cost
      end
    end,

    refund = function(state, limit, now, charged_at, cost)
      if state.total == 0 or charged_at + limit.window <= now then return end
      -- What a correction added stands in later entries.
      local index = state.gone - 1
      local emptied = 0
      walk(state, function(at, count)
        if cost == 0 then return true end
        index = index + 1
        if at < charged_at then return nil end
        local given = math.min(count, cost)
        cost = cost - given
        state.total = state.total - given
        if given == count then
          emptied = emptied + 1
          redis.call('LSET', state.key, index, '')
        else
          redis.call('LSET', state.key, index, struct.pack('<I7I5', at, count - given))
        end
      end)
      if emptied > 0 then
        redis.call('LREM', state.key, emptied, '')
        state.newest = newest_of(state)
      end
    end,

    expires = expires,

    pack = function(state, limit, now)
      if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
      state.gone = 0
      local ends = expires(state, limit, now)
      if ends > now then
        -- By the whole second, as its record.
        local second = math.ceil(ends / 1000000)
        redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
      end
      return struct.pack('<dI7', state.total, state.newest), ends
    end,
  }
end
