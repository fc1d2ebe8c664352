-- The twin of src/policies/sliding-window.ts, where the arithmetic is explained.
-- A state is a flat row: time, count, time, count, … Packed: their sum (6 bytes), which spares adding them up, then 7 and 5 each.
define[2] = function()
  local most_entries, most_count = 16, 1099511627775

  local function used(state)
    local sum = 0
    for index = 2, #state, 2 do sum = sum + state[index] end
    return sum
  end

  local function latest_at(state, index, cell, now)
    local at = state[index]
    if cell == 0 then return at end
    local ends = (math.floor(at / cell) + 1) * cell
    if ends > now then return ends end
    local last = index
    while last + 2 < #state and state[last + 2] < ends do last = last + 2 end
    return state[last]
  end

  local function drop(state, index)
    table.remove(state, index)
    table.remove(state, index)
  end

  local function merge_newest(state, window)
    local cell = math.ceil(window / 14)
    local index = #state - 1
    while index > 1 and math.floor(state[index] / cell) ~= math.floor(state[index - 2] / cell) do index = index - 2 end
    if index == 1 then index = #state - 1 end
    state[index + 1] = math.min(most_count, state[index + 1] + state[index - 1])
    drop(state, index - 2)
  end

  local function expires(state, limit, now)
    if #state == 0 then return now end
    return state[#state - 1] + limit.window
  end

  return {
    open = function(stored, limit, now)
      if not stored then return {} end
      local state = stored
      if type(stored) == 'string' then
        local entries = (#stored - 6) / 12
        state = { struct.unpack('<' .. string.rep('I7I5', entries), stored, 7) }
        state[#state] = nil -- where unpacking ended
      end
      while #state > 0 and state[1] + limit.window <= now do drop(state, 1) end
      local index = #state - 1
      if index > 0 and state[index] > now + limit.window then
        while index > 0 and state[index] > now do
          state[index] = now
          index = index - 2
        end
        state.mended = true
      end
      return state
    end,

    earliest = function(state, limit, now, cost)
      local excess = used(state) + cost - limit.quota
      if excess <= 0 then return now end
      for index = 1, #state, 2 do
        excess = excess - state[index + 1]
        if excess <= 0 then return state[index] + limit.window end
      end
      return now
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - used(state))
    end,

    charge = function(state, limit, now, cost)
      local size = #state
      if size > 0 and state[size - 1] >= now then
        state[size] = math.min(most_count, state[size] + cost)
      else
        state[size + 1] = now
        state[size + 2] = cost
        if size + 2 > most_entries * 2 then merge_newest(state, limit.window) end
      end
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at + limit.window <= now then return end
      -- What a correction added stands in later entries.
      local index = 1
      while cost > 0 and index < #state do
        if state[index] >= charged_at then
          local given = math.min(state[index + 1], cost)
          cost = cost - given
          state[index + 1] = state[index + 1] - given
        end
        if state[index + 1] == 0 then drop(state, index) else index = index + 2 end
      end
    end,

    room = function(state, limit, now)
      local cell, window = 0, limit.window
      if limit.quota > most_entries then
        cell = math.ceil(window / 14)
        window = cell * 14
      end
      return {
        quota = limit.quota,
        window = window,
        cell = cell,
        used_at = function(time)
          local left = used(state)
          for index = 1, #state, 2 do
            if latest_at(state, index, cell, now) + window > time then break end
            left = left - state[index + 1]
          end
          return left
        end,
        falls_to = function(target)
          local left, time = used(state), now
          for index = 1, #state, 2 do
            if left <= target then break end
            left = left - state[index + 1]
            time = latest_at(state, index, cell, now) + window
          end
          return time
        end,
      }
    end,

    expires = expires,

    pack = function(state, limit, now)
      local bytes = struct.pack('<I6' .. string.rep('I7I5', #state / 2), used(state), unpack(state))
      return bytes, expires(state, limit, now)
    end,
  }
end
