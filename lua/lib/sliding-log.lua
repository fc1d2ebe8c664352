-- The twin of src/policies/sliding-log.ts. Its entries are a list of their own, <time: 7 bytes> <count: 5>, oldest first;
-- the record in the partition keeps the sum and the newest time, so that most decisions read few entries or none.
define[3] = function()
  local chunk, longest_chunk, most_count = 32, 256, 1099511627775
  -- Of a longer log the rest counts as one entry of its newest time: what is told is true, and may be later than it need be.
  local most_seen = 1024
  local min = math.min

  local function entry_at(bytes)
    return struct.unpack('<I7I5', bytes)
  end

  local function time_in(state, bytes)
    local at, count = entry_at(bytes)
    if state.future and at > state.future then at = state.future end
    return at, count
  end

  local function newest_of(state)
    local bytes = redis.call('LINDEX', state.key, -1)
    if bytes then return (entry_at(bytes)) end
    return 0
  end

  -- What was read of the list: each entry's time, and what all up to it count, from the first that was not gone.
  local function seen_of(state)
    local seen = state.seen
    if not seen then
      seen = { times = {}, sums = {}, size = 0, first = state.gone }
      state.seen = seen
    end
    -- How many of them have left the window since, and what they counted.
    local past = state.gone - seen.first
    return seen, past, past > 0 and seen.sums[past] or 0
  end

  -- Reads some more. Says whether there are more that may be read.
  local function see_more(state, seen, past)
    if seen.ended or seen.size >= past + most_seen then return false end
    local wanted = min(longest_chunk, math.max(chunk, seen.size), past + most_seen - seen.size)
    local from = seen.first + seen.size
    local entries = redis.call('LRANGE', state.key, from, from + wanted - 1)
    local sum = seen.sums[seen.size] or 0
    for index = 1, #entries do
      local at, count = time_in(state, entries[index])
      sum = sum + count
      seen.times[seen.size + index] = at
      seen.sums[seen.size + index] = sum
    end
    seen.size = seen.size + #entries
    if #entries < wanted then seen.ended = true end
    return #entries > 0
  end

  -- The first place after `low`, at most `high`, that something holds of; one further where there is none.
  local function first_place(low, high, holds)
    while low < high do
      local middle = math.floor((low + high + 1) / 2)
      if holds(middle) then high = middle - 1 else low = middle end
    end
    return low + 1
  end

  local function used_at(state, window, time)
    if state.total == 0 then return 0 end
    local seen, past, gone = seen_of(state)
    while seen.size <= past or seen.times[seen.size] + window <= time do
      if not see_more(state, seen, past) then
        if not seen.ended and time >= state.newest + window then return 0 end
        break
      end
    end
    local place = first_place(past, seen.size, function(at) return seen.times[at] + window > time end)
    return state.total - ((seen.sums[place - 1] or 0) - gone)
  end

  local function falls_to(state, window, target, now)
    if state.total <= target then return now end
    local seen, past, gone = seen_of(state)
    local enough = state.total - target + gone
    while seen.size <= past or seen.sums[seen.size] < enough do
      if not see_more(state, seen, past) then return state.newest + window end
    end
    return seen.times[first_place(past, seen.size, function(at) return seen.sums[at] >= enough end)] + window
  end

  -- A clock that stepped forward and back left times behind that are still to come: they count as now.
  local function mend_future(state, limit, now)
    state.future = now
    state.newest = now
    state.seen = nil
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
      local live = false
      local seen, past, gone = seen_of(state)
      local sum = gone
      while not live do
        if seen.size > past then
          live = seen.times[past + 1] + limit.window > now
          if not live then
            past = past + 1
            sum = seen.sums[past]
          end
        elseif not see_more(state, seen, past) then
          break
        end
      end
      if sum > gone then
        state.gone = seen.first + past
        state.total = state.total - (sum - gone)
        state.mended = true
      end
      -- The list was evicted, and its record was not: what it counted is not known any more.
      if not live then
        fresh.mended = true
        return fresh
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      if state.total + cost <= limit.quota or cost > limit.quota then return now end
      return falls_to(state, limit.window, limit.quota - cost, now)
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - state.total)
    end,

    charge = function(state, limit, now, cost)
      -- A list without its record is what an eviction left behind: it counts nothing.
      if state.fresh then redis.call('UNLINK', state.key) end
      state.fresh = nil
      state.seen = nil
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
      -- What is corrected is mostly young, so it is looked for from the end: how many entries are not older.
      local young = 0
      while true do
        local entries = redis.call('LRANGE', state.key, -(young + chunk), -(young + 1))
        local index = #entries
        while index > 0 and time_in(state, entries[index]) >= charged_at do index = index - 1 end
        young = young + #entries - index
        if index > 0 or #entries < chunk then break end
      end
      -- What a correction added stands in later entries.
      local emptied = 0
      while young > 0 and cost > 0 do
        local entries = redis.call('LRANGE', state.key, -young, min(-1, chunk - young - 1))
        for index = 1, #entries do
          if cost == 0 then break end
          local at, count = time_in(state, entries[index])
          local given = min(count, cost)
          cost = cost - given
          state.total = state.total - given
          if given == count then
            emptied = emptied + 1
            redis.call('LSET', state.key, index - 1 - young, '')
          else
            redis.call('LSET', state.key, index - 1 - young, struct.pack('<I7I5', at, count - given))
          end
        end
        young = young - #entries
      end
      state.seen = nil
      if emptied > 0 then
        redis.call('LREM', state.key, -emptied, '')
        state.newest = newest_of(state)
      end
    end,

    room = function(state, limit, now)
      return {
        quota = limit.quota,
        window = limit.window,
        cell = 0,
        used_at = function(time) return used_at(state, limit.window, time) end,
        falls_to = function(target) return falls_to(state, limit.window, target, now) end,
      }
    end,

    expires = expires,

    pack = function(state, limit, now)
      if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
      state.gone, state.seen = 0, nil
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
