-- The twin of the demand in src/policies/pool.ts, where it is explained. `extra` is how many tiers share the pool, which of them
-- asks (from 0), and those who go first. Packed: start: 8 bytes; then for each tier what it asked in the window before, in this
-- one, and what it had: 8 bytes each.
define[9] = function()
  local function zeros(seats)
    local row = {}
    for seat = 1, seats do row[seat] = 0 end
    return row
  end

  local function wanted(limit, asked_of)
    local sum = 0
    for index = 3, #limit.extra do sum = sum + asked_of(limit.extra[index] + 1) end
    return sum
  end

  local function allowed(limit, wanted_by_higher)
    if wanted_by_higher == 0 then return math.huge end
    return limit.quota - wanted_by_higher
  end

  local function expected(state, limit)
    return wanted(limit, function(seat) return math.max(state.before[seat], state.asked[seat]) end)
  end

  local function some(row)
    for seat = 1, #row do
      if row[seat] > 0 then return true end
    end
    return false
  end

  local function expires(state, limit, now)
    if some(state.asked) then return state.start + 2 * limit.window end
    if some(state.before) then return state.start + limit.window end
    return now
  end

  return {
    open = function(stored, limit, now)
      local seats = limit.extra[1]
      local start = math.floor(now / limit.window) * limit.window
      local state = stored
      if type(stored) == 'string' then
        local row = { struct.unpack('<' .. string.rep('d', #stored / 8), stored) }
        state = { start = row[1], before = {}, asked = {}, had = {} }
        for seat = 1, (#stored / 8 - 1) / 3 do
          state.before[seat], state.asked[seat], state.had[seat] = row[seat * 3 - 1], row[seat * 3], row[seat * 3 + 1]
        end
      end
      if not state or #state.asked ~= seats or state.start + 2 * limit.window <= now then
        return { start = start, before = zeros(seats), asked = zeros(seats), had = zeros(seats) }
      end
      if state.start > now + limit.window then
        state.start = start
        state.mended = true
      end
      if state.start + limit.window > now then return state end
      return { start = state.start + limit.window, before = state.asked, asked = zeros(seats), had = zeros(seats) }
    end,

    earliest = function(state, limit, now, cost)
      if state.had[limit.extra[2] + 1] + cost <= allowed(limit, expected(state, limit)) then return now end
      local next_start = state.start + limit.window
      if cost <= allowed(limit, wanted(limit, function(seat) return state.asked[seat] end)) then return next_start end
      return next_start + limit.window
    end,

    remaining = function(state, limit)
      local left = allowed(limit, expected(state, limit)) - state.had[limit.extra[2] + 1]
      return math.max(0, math.min(limit.capacity, left))
    end,

    -- Notes what a tier asks for, whether it gets it or not.
    note = function(state, limit, cost)
      local seat = limit.extra[2] + 1
      state.asked[seat] = state.asked[seat] + cost
    end,

    charge = function(state, limit, now, cost)
      local seat = limit.extra[2] + 1
      state.had[seat] = state.had[seat] + cost
      return 0
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at < state.start then return end
      local seat = limit.extra[2] + 1
      state.had[seat] = math.max(0, state.had[seat] - cost)
      state.asked[seat] = math.max(0, state.asked[seat] - cost)
    end,

    expires = expires,

    pack = function(state, limit, now)
      local row = { state.start }
      for seat = 1, #state.asked do
        row[#row + 1] = state.before[seat]
        row[#row + 1] = state.asked[seat]
        row[#row + 1] = state.had[seat]
      end
      return struct.pack('<' .. string.rep('d', #row), unpack(row)), expires(state, limit, now)
    end,
  }
end
