-- The twin of src/policies/fixed-window.ts, where the arithmetic is explained. Packed: start, used: 8 bytes each.
-- A window that follows the calendar has `extra`: spread, origin, and the day that months begin with (0: no months).
define[4] = function()
  local DAY = 86400000000

  -- Days from 1970 to a date of the Gregorian calendar; years are taken to begin in March, so that leap days come last.
  local function days_to(year, month, day)
    if month <= 2 then year = year - 1 end
    local in_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
    return year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) + in_year - 719468
  end

  -- Where a month, counted from year 0, begins for those whose month begins on a day that it may lack.
  local function month_start(month, day)
    local first = days_to(math.floor(month / 12), month % 12 + 1, 1)
    local length = days_to(math.floor((month + 1) / 12), (month + 1) % 12 + 1, 1) - first
    return (first + math.min(day, length) - 1) * DAY
  end

  local function window_at(limit, time)
    local calendar = limit.extra
    if not calendar then return time, time + limit.window end
    local day = calendar[3]
    if day > 0 then
      local month = 1970 * 12 + math.floor(time / DAY / 30.436875)
      while month_start(month, day) > time do month = month - 1 end
      while month_start(month + 1, day) <= time do month = month + 1 end
      return month_start(month, day), month_start(month + 1, day)
    end
    local start = calendar[2] + math.floor((time - calendar[2]) / limit.window) * limit.window
    return start, start + limit.window
  end

  local function expires(state, _, now)
    if state.used == 0 then return now end
    return state.ends
  end

  return {
    open = function(stored, limit, now)
      local state = stored
      if type(stored) == 'string' then
        local start, used = struct.unpack('<dd', stored)
        state = { start = start, used = used }
      end
      if not state then
        local start, ends = window_at(limit, now)
        return { start = start, used = 0, ends = ends }
      end
      if state.start > now + limit.window then
        state.start = limit.extra and window_at(limit, now) or now
        state.mended = true
      end
      if not limit.extra then
        if state.start + limit.window <= now then return { start = now, used = 0, ends = now + limit.window } end
        state.ends = state.start + limit.window
        return state
      end
      local start, ends = window_at(limit, math.max(state.start, now))
      if state.start < start then return { start = start, used = 0, ends = ends } end
      state.ends = ends
      return state
    end,

    earliest = function(state, limit, now, cost)
      if state.used + cost <= limit.quota then return now end
      return state.ends + (limit.extra and limit.extra[1] or 0)
    end,

    remaining = function(state, limit)
      return math.max(0, limit.quota - state.used)
    end,

    charge = function(state, limit, now, cost)
      if state.used == 0 and not limit.extra and now > state.start then
        state.start = now
        state.ends = now + limit.window
      end
      state.used = state.used + cost
      return 0
    end,

    refund = function(state, limit, now, charged_at, cost)
      if charged_at < state.start or state.ends <= now then return end
      state.used = state.used - math.min(state.used, cost)
    end,

    room = function(state, limit)
      local ends = state.ends
      return {
        quota = limit.quota,
        window = limit.window,
        cell = 0,
        used_at = function(time) return time < ends and state.used or 0 end,
        falls_to = function(target) return state.used <= target and 0 or ends end,
      }
    end,

    expires = expires,

    pack = function(state, limit, now)
      return struct.pack('<dd', state.start, state.used), expires(state, limit, now)
    end,
  }
end
