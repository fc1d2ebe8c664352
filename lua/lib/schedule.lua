-- The twin of src/policies/schedule.ts and of src/stores/refused.ts, where all of it is explained. A schedule is a record of its
-- own beside that of its policy, while somebody waits. Packed: how many runs, then each run: first and last (7 bytes each), count
-- times 4 and how it was rounded (4), cost (7); then each holder: client (4), first and last (7 each), units (7).
local function schedule_record(partition, entry)
  return partition.records[(entry.id + SCHEDULE_ID) % 4294967296]
end

local schedules

-- Made when first needed: most decisions admit, and nobody waits.
local function make_schedules()
  local most_runs, many_turns, most_holders = 8, 4, 16
  local FIXED_WINDOW = 4
  local LATE, ROUNDING, UNEVEN = 1000000, 2000, 4
  local RESERVED, RESERVED_UNEVEN = 2001000, 8
  local most_looks, most_steps, most_rounds, part_of_client = 8, 64, 32, 16
  local rounded_off, most_rounded = 8, 4096
  local longest_search = 2 ^ 45
  local rounding_weight, rounding_units = 0.5, 1e-6
  local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

  local function reach_of(window)
    return max(60000000, 4 * window)
  end

  local function latest(run)
    if run.rounded == 3 then return RESERVED + RESERVED_UNEVEN end
    if run.rounded == 0 then return LATE end
    return LATE + ROUNDING
  end

  local function total_of(run)
    if run.count == 0 then return run.cost end
    return run.count * run.cost
  end

  local function steps_to(run, time)
    local step = (run.last - run.first) / (run.count - 1)
    local steps = (time - run.first) / step
    local whole = floor(steps + 0.5)
    if math.abs(steps - whole) * step <= UNEVEN then return whole end
    return steps
  end

  local function before(run, time)
    if time <= run.first then return 0 end
    if time > run.last then return total_of(run) end
    if run.count == 0 then return 0 end
    return min(run.count - 1, steps_to(run, time)) * run.cost
  end

  local slot_for

  -- What finds a moment beside others who wait.
  local function make_slots()
    local function up_to(run, time)
      if time < run.first then return 0 end
      if time >= run.last or run.count == 0 then return total_of(run) end
      return min(run.count, steps_to(run, time) + 1) * run.cost
    end

    local function exactly_up_to(run, time)
      if time < run.first then return 0 end
      if time >= run.last or run.count == 0 then return total_of(run) end
      return min(run.count, floor(steps_to(run, time)) + 1) * run.cost
    end

    local function exactly_before(run, time)
      if time <= run.first then return 0 end
      if time > run.last then return total_of(run) end
      if run.count == 0 then return 0 end
      return min(run.count - 1, ceil(steps_to(run, time))) * run.cost
    end

    local function gone_at(run, lag, time, share)
      local ends = run.last + lag + 1
      if ends <= time then return math.huge end
      if run.count <= 1 then return ends end
      local pace = (run.last - run.first) / ((run.count - 1) * run.cost)
      return min(ends, max(time, run.first + lag) + max(1, ceil(share * pace)))
    end

    local function first_from(soonest, will_do)
      local span = 1
      while not will_do(soonest + span) do
        span = span * 2
        if span > longest_search then return math.huge end
      end
      local not_yet, found = soonest + floor(span / 2), soonest + span
      while found - not_yet > 1 do
        local middle = floor((not_yet + found) / 2)
        if will_do(middle) then found = middle else not_yet = middle end
      end
      return found
    end

    local function pace_slot(room, runs, from, cost, longest_late)
      local deficit, at, quota, scale = room.deficit, room.at, room.quota, room.scale
      local weight, capacity = room.weight, room.capacity
      local brim = capacity * weight
      local ends, lates = 0, {}
      for index, run in ipairs(runs) do
        ends = max(ends, run.last)
        lates[index] = latest(run)
      end

      local function promised(time)
        local sum = cost
        for _, run in ipairs(runs) do sum = sum + up_to(run, time) end
        return sum
      end

      local function arrived(time)
        local sum = 0
        for index, run in ipairs(runs) do sum = sum + before(run, time - lates[index]) end
        return sum
      end

      local function refill(us)
        return (max(0, us) * quota) / scale
      end

      local function heavy(units)
        local product = units * weight
        if scale ~= 1 then product = product + rounded_off * min(units, most_rounded) end
        if product > 9007199254740991 then return product * (1 + 2 ^ -50) end
        return product
      end

      local moments, arrived_by = {}, {}
      for index, run in ipairs(runs) do
        moments[#moments + 1] = run.first + lates[index]
        moments[#moments + 1] = run.last + lates[index]
      end
      for index, moment in ipairs(moments) do arrived_by[index] = arrived(moment) end

      local function over_at(time, till)
        local units = promised(time)
        local over = deficit + heavy(units) - refill(time - at)
        for index, moment in ipairs(moments) do
          if moment <= till then
            over = max(over, heavy(units - arrived_by[index]) - refill(time - moment) - rounding_weight)
          end
        end
        return over - brim
      end

      local evenly, turns = ceil(longest_late / (floor(capacity / cost) - 1)), 0
      for _, run in ipairs(runs) do
        if run.count ~= 1 then turns = turns + 1 end
      end
      local spread = turns >= many_turns and evenly < math.huge and refill(evenly) > cost * weight
      local behind = max(from, spread and ends + evenly or ends)
      -- Most are behind all the others.
      local slot = from
      if spread or (ends > from and deficit + heavy(promised(ends)) - refill(ends - at) > brim) then slot = behind end
      for _ = 1, most_steps do
        local till = slot + longest_late
        local arrived_till = arrived(till)
        local blocked = 0

        local function look(time)
          if time <= slot or time <= blocked then return end
          local units = promised(time)
          local since = min(time, till)
          local arrived_since = since == till and arrived_till or arrived(since)
          local crowd = units - arrived_since
          local full
          if since == time then
            full = crowd - capacity > rounding_units
          else
            full = heavy(crowd) - refill(time - since) - brim > rounding_weight
          end
          if full or over_at(time, since) > 0 then blocked = time end
        end

        if ends > slot then
          for _, run in ipairs(runs) do
            look(run.first)
            look(run.last)
          end
          for _, moment in ipairs(moments) do
            if moment <= till then look(moment) end
          end
          look(till)
        end
        if blocked > slot then
          slot = blocked
        else
          local over = over_at(slot, slot)
          if over > 0 then
            slot = slot + max(1, ceil((over * scale) / quota))
          else
            local crowd = promised(slot) - arrived(slot) - capacity
            if crowd <= rounding_units then return slot end
            local share, following = crowd / #runs, math.huge
            for index, run in ipairs(runs) do following = min(following, gone_at(run, lates[index], slot, share)) end
            slot = following
          end
        end
      end
      return first_from(behind, function(time)
        return over_at(time, time) <= 0 and promised(time) - arrived(time) - capacity <= rounding_units
      end)
    end

    local function counted_us(runs, which, slot, cell)
      local run = runs[which]
      local first, last, count = run.first, run.last, run.count
      local late = latest(run)
      if cell == 0 then return late end
      local ends = (floor((last + late) / cell) + 1) * cell
      local begins = ends - cell
      local longest_late = LATE + ROUNDING
      if first > begins - cell then
        local latest_at = last + late
        if slot < ends and slot + longest_late > latest_at and slot + longest_late >= begins then
          latest_at = slot + longest_late
        end
        for index, other in ipairs(runs) do
          if index ~= which and other.first < ends then latest_at = max(latest_at, other.last + latest(other)) end
        end
        return min(latest_at, ends) - first
      end
      if not (count > 1 and last - first > (count - 1) * (cell + late)) then return nil end

      local function apart(from, to)
        return to + longest_late + cell < first or from >= ends
      end

      if not apart(slot, slot) then return nil end
      for index, other in ipairs(runs) do
        if index ~= which and not apart(other.first, other.last) then return nil end
      end
      return late
    end

    local function window_slot(room, runs, from, cost, longest_late)
      local quota, window, cell = room.quota, room.window, room.cell
      local longest_lag = longest_late + window + cell
      local strict = cell > 0 and longest_late >= RESERVED
      for _, run in ipairs(runs) do
        if cell > 0 and run.rounded == 3 then strict = true end
      end

      local function promised(time)
        local sum = cost
        for _, run in ipairs(runs) do sum = sum + up_to(run, time) end
        return sum
      end

      local function exactly_promised(time)
        local sum = cost
        for _, run in ipairs(runs) do sum = sum + exactly_up_to(run, time) end
        return sum
      end

      local slot = from
      for _ = 1, most_steps do
        local counted, lags = {}, {}
        for index, run in ipairs(runs) do
          counted[index] = not strict and counted_us(runs, index, slot, cell) or false
          lags[index] = window + (counted[index] or latest(run) + cell)
        end

        local function gone(time)
          local sum = 0
          for index, run in ipairs(runs) do sum = sum + before(run, time - lags[index] + 1) end
          return sum
        end

        local function gone_by(time)
          local sum = 0
          for index, run in ipairs(runs) do
            if counted[index] then
              sum = sum + exactly_before(run, time - lags[index] + 1)
            else
              sum = sum + exactly_before(run, floor((time - window) / cell) * cell - latest(run))
            end
          end
          return sum
        end

        local blocked = 0

        local function look(time, over)
          if time <= slot or time <= blocked or time >= slot + longest_lag then return end
          if over(time) > 0 then blocked = time end
        end

        local function exactly_over(time)
          return room.used_at(time) + exactly_promised(time) - gone_by(time) - quota
        end

        for _, run in ipairs(runs) do
          local first, last, count = run.first, run.last, run.count
          if last > slot and count <= most_looks then
            look(first, exactly_over)
            for index = 1, count - 2 do
              look(first + floor(((last - first) / (count - 1)) * index), exactly_over)
            end
            look(last, exactly_over)
          elseif last > slot then
            local used = room.used_at(max(slot, first))

            local function over(time)
              return used + promised(time) - gone(time) - quota
            end

            look(first, over)
            look(last, over)
            for index, other in ipairs(runs) do
              local leaves = other.first + lags[index]
              if leaves > first and leaves < last then look(leaves, over) end
            end
          end
        end
        if blocked > slot then
          slot = blocked
        else
          local used = room.used_at(slot)
          local over = used + exactly_promised(slot) - gone_by(slot) - quota
          if over <= 0 then return slot end
          local share = over / (#runs + 1)
          local following = math.huge
          for index, run in ipairs(runs) do
            if counted[index] then
              following = min(following, gone_at(run, lags[index] - 1, slot, share))
            else
              local late = latest(run)
              local at = max(run.first, floor((slot - window) / cell) * cell - late)
              if at <= run.last then following = min(following, (floor((at + late) / cell) + 1) * cell + window) end
            end
          end
          local falls = math.huge
          if used ~= 0 then falls = room.falls_to(max(0, floor(used - share))) end
          slot = max(slot + 1, min(following, falls))
        end
      end
      return math.huge
    end

    return function(room, runs, from, cost, reserved)
      local longest_late = reserved and RESERVED or LATE + ROUNDING
      if room.refills then return pace_slot(room, runs, from, cost, longest_late) end
      local slot, ends = window_slot(room, runs, from, cost, longest_late), 0
      if slot < math.huge then return slot end
      for _, run in ipairs(runs) do ends = max(ends, run.last) end
      return ends > from and window_slot(room, runs, ends, cost, longest_late) or slot
    end
  end

  local function copy(run)
    return { first = run.first, last = run.last, count = run.count, cost = run.cost, rounded = run.rounded }
  end

  local function insert(runs, run)
    local index = #runs + 1
    while index > 1 and runs[index - 1].first > run.first do index = index - 1 end
    table.insert(runs, index, run)
  end

  -- Runs are changed in place: they are this call's own.
  local function go_on(runs, promise, after)
    local slot, cost = promise.last, promise.cost
    local found
    for index, run in ipairs(runs) do
      if run.count > 1 and run.cost == cost and slot > run.last
        and math.abs(slot - run.last - (run.last - run.first) / (run.count - 1)) <= 2 then
        found = index
        break
      end
    end
    local from = #runs + 1
    if after == 'any' then from = 1 elseif after == 'last' then from = max(1, #runs) end
    if not found then
      for place = #runs, from, -1 do
        local run = runs[place]
        if run.count == 1 and run.cost == cost and slot > run.last then
          found = place
          break
        end
      end
    end
    if not found then return false end
    local run = runs[found]
    run.last = slot
    run.count = run.count + 1
    run.rounded = max(run.rounded, promise.rounded)
    return true
  end

  local shorten

  -- What makes fewer runs of too many.
  local function make_shorten()
    local function evened(runs, after)
      local rest = {}
      for _, run in ipairs(runs) do
        if run.count ~= 1 or not go_on(rest, run, after) then insert(rest, copy(run)) end
      end
      return rest
    end

    return function(runs)
      local rest = evened(runs, 'last')
      if #rest > most_runs then
        local moments = {}
        for index, run in ipairs(rest) do
          if run.count <= 1 or run.rounded == 2 or run.last - run.first > ROUNDING / 2 then
            moments[index] = run
          else
            moments[index] = { first = run.first, last = run.first, count = 1, cost = total_of(run), rounded = run.rounded + 1 }
          end
        end
        rest = evened(moments, 'last')
      end
      if #rest > most_runs then rest = evened(rest, 'any') end
      if #rest <= most_runs then return rest end
      local closest, width = 1, math.huge
      for index = 1, #rest - 1 do
        local span = max(rest[index].last, rest[index + 1].last) - rest[index].first
        if span < width then
          width = span
          closest = index
        end
      end
      local one, other = rest[closest], rest[closest + 1]
      rest[closest] = {
        first = one.first,
        last = max(one.last, other.last),
        count = 0,
        cost = total_of(one) + total_of(other),
        rounded = max(one.rounded, other.rounded),
      }
      table.remove(rest, closest + 1)
      return rest
    end
  end

  local function fewer(runs)
    if #runs <= most_runs then return runs end
    shorten = shorten or make_shorten()
    return shorten(runs)
  end

  local function add_slot(runs, slot, cost, rounded)
    for index, run in ipairs(runs) do
      if run.last == slot and (run.count > 1 or run.first == slot) then
        local both = run.cost + cost
        local looser = max(run.rounded, rounded)
        if run.count > 1 then
          run.count = run.count - 1
          run.last = run.last - floor((run.last - run.first) / run.count)
          insert(runs, { first = slot, last = slot, count = 1, cost = both, rounded = looser })
        else
          run.cost, run.rounded = both, looser
        end
        return fewer(runs)
      end
    end
    local added = { first = slot, last = slot, count = 1, cost = cost, rounded = rounded }
    if not go_on(runs, added, 'run') then insert(runs, added) end
    return fewer(runs)
  end

  local function count_up_to(run, time)
    if time < run.first then return 0 end
    if time >= run.last then return run.count end
    return min(run.count - 1, floor(((time - run.first) / (run.last - run.first)) * (run.count - 1)) + 1)
  end

  local function without(run, gone)
    if gone == 0 then return run end
    local count = run.count - gone
    local first = run.last
    if count ~= 1 then first = run.first + floor(((run.last - run.first) / (run.count - 1)) * gone) end
    run.first, run.count = first, count
    return run
  end

  local function drop_lapsed(schedule, now)
    local lapsed = now - LATE
    local runs, holders = {}, {}
    for _, run in ipairs(schedule.runs) do
      if run.last > lapsed then insert(runs, without(run, run.count == 0 and 0 or count_up_to(run, lapsed))) end
    end
    for _, holder in ipairs(schedule.holders) do
      if holder.last > lapsed then
        if holder.first <= lapsed then
          holder.units = ceil((holder.units * (holder.last - lapsed)) / (holder.last - holder.first))
          holder.first = lapsed
        end
        holders[#holders + 1] = holder
      end
    end
    schedule.runs, schedule.holders = runs, holders
  end

  local function take_due(schedule, now, cost)
    if #schedule.runs == 0 or schedule.runs[1].first > now then return end
    local left, kept = cost, {}
    for _, run in ipairs(schedule.runs) do
      if left == 0 or run.first > now then
        insert(kept, run)
      elseif run.count <= 1 then
        local taken = run.last <= now and min(left, run.cost) or 0
        left = left - taken
        if taken < run.cost then
          run.cost = run.cost - taken
          insert(kept, run)
        end
      else
        local taken = min(count_up_to(run, now), floor(left / run.cost))
        left = left - taken * run.cost
        if taken < run.count then insert(kept, without(run, taken)) end
      end
    end
    schedule.runs = kept
  end

  local function promised_from(schedule, time)
    local sum = 0
    for _, run in ipairs(schedule.runs) do sum = sum + total_of(run) - before(run, time) end
    return sum
  end

  local function held_by(schedule, client)
    for _, holder in ipairs(schedule.holders) do
      if holder.client == client then return holder.units end
    end
    return 0
  end

  local function add_holder(holders, client, slot, cost)
    for _, holder in ipairs(holders) do
      if holder.client == client then
        holder.first = min(holder.first, slot)
        holder.last = max(holder.last, slot)
        holder.units = holder.units + cost
        return
      end
    end
    if #holders == most_holders then
      local least = 1
      for place, holder in ipairs(holders) do
        if holder.units < holders[least].units then least = place end
      end
      table.remove(holders, least)
    end
    holders[#holders + 1] = { client = client, first = slot, last = slot, units = cost }
  end

  local packing = {
    pack = function(schedule, _, now)
      local parts, ends = { struct.pack('<B', #schedule.runs) }, now
      for _, run in ipairs(schedule.runs) do
        parts[#parts + 1] = struct.pack('<I7I7I4I7', run.first, run.last, run.count * 4 + run.rounded, run.cost)
        ends = max(ends, run.last + LATE)
      end
      for _, holder in ipairs(schedule.holders) do
        parts[#parts + 1] = struct.pack('<I4I7I7I7', holder.client, holder.first, holder.last, holder.units)
        ends = max(ends, holder.last + LATE)
      end
      return table.concat(parts), ends
    end,
  }

  local function unpack_schedule(bytes)
    local runs, holders = {}, {}
    local from, count = 2, string.byte(bytes, 1)
    for index = 1, count do
      local first, last, kind, cost = struct.unpack('<I7I7I4I7', bytes, from)
      runs[index] = { first = first, last = last, count = floor(kind / 4), cost = cost, rounded = kind % 4 }
      from = from + 25
    end
    while from < #bytes do
      local client, first, last, units = struct.unpack('<I4I7I7I7', bytes, from)
      holders[#holders + 1] = { client = client, first = first, last = last, units = units }
      from = from + 25
    end
    return { runs = runs, holders = holders }
  end

  -- The schedule beside a policy's counter, without those who are not waited for any more.
  local function open_schedule(entry, now)
    if not entry.schedule then
      local record = schedule_record(entry.partition, entry)
      entry.schedule = record and (record.state or unpack_schedule(record.bytes)) or { runs = {}, holders = {} }
      drop_lapsed(entry.schedule, now)
    end
    return entry.schedule
  end

  local function keep_schedule(entry)
    local partition = entry.partition
    local record = schedule_record(partition, entry)
    if not record then
      local id = (entry.id + SCHEDULE_ID) % 4294967296
      record = { expires = 0 }
      partition.records[id] = record
      partition.order[#partition.order + 1] = id
    end
    record.algorithm, record.state = packing, entry.schedule
    keep(partition, record)
  end

  -- Notes a promise, unless the client holds its part of a schedule that others share.
  local function note(entry, now, slot, reach)
    local schedule = open_schedule(entry, now)
    if entry.at ~= 0 then
      local whole = max(entry.capacity, entry.quota) + floor((entry.quota * reach) / entry.window)
      local part = max(entry.cost, floor(whole / part_of_client))
      if held_by(schedule, entry.at) + entry.cost > part then return end
      add_holder(schedule.holders, entry.at, slot, entry.cost)
    end
    schedule.runs = add_slot(schedule.runs, slot, entry.cost, (slot - now) % 1000 == 0 and 0 or 1)
    keep_schedule(entry)
  end

  local function slot_beside(room, runs, from, cost, reserved)
    slot_for = slot_for or make_slots()
    return slot_for(room, runs, from, cost, reserved)
  end

  local function open_seat(entry, now, refusal)
    local algorithm = entry.record.algorithm
    local by_calendar = entry.kind == FIXED_WINDOW and entry.extra
    if not algorithm.room or by_calendar or entry.after or entry.cost == 0 then return nil end
    local schedule = open_schedule(entry, now)
    local runs = schedule.runs
    if entry.book and #entry.book.kept > 0 then
      runs = { unpack(runs) }
      for _, run in ipairs(refusal.desk.runs_of(entry)) do runs[#runs + 1] = run end
    end
    local room
    return {
      slot = function(from)
        if #runs == 0 then return from end
        room = room or algorithm.room(entry.record.state, entry, now)
        return slot_beside(room, runs, from, entry.cost, refusal.reserved)
      end,
      promise = function(slot, reach) note(entry, now, slot, reach) end,
    }
  end

  local function never_huge(wait)
    if wait < 0 then return math.huge end
    return wait
  end

  local function seat_of(refusal, index)
    local entries, now = refusal.entries, refusal.now
    local entry = entries[index]
    if entry.role ~= refusal.common_role then return open_seat(entry, now, refusal) end
    -- A pool has room when either part has.
    local own, common = open_seat(entries[index - 1], now, refusal), open_seat(entry, now, refusal)
    if not own or not common then return nil end
    local own_from = now + never_huge(entries[index - 1].own_wait)
    local common_from = now + max(never_huge(entry.own_wait), never_huge(entries[index + 1].own_wait))

    local function slot_of(seat, from)
      if from == math.huge then return from end
      return seat.slot(from)
    end

    return {
      slot = function(from)
        return min(slot_of(own, max(from, own_from)), slot_of(common, max(from, common_from)))
      end,
      promise = function(slot, reach)
        local seat = slot_of(own, max(slot, own_from)) == slot and own or common
        seat.promise(slot, reach)
      end,
    }
  end

  local function agree(seats, from, till)
    local at = from
    for _ = 1, most_rounds do
      local later = at
      for _, seat in ipairs(seats) do later = max(later, seat.slot(later)) end
      if later == at then return at end
      if later > till then return math.huge end
      at = later
    end
    return math.huge
  end

  -- Waits here are never -1.
  local function slot_of_refused(refusal, wait, extra)
    local now, entries = refusal.now, refusal.entries
    if wait == math.huge then return { at = math.huge } end
    local from, longest = now + wait, 0
    for _, entry in ipairs(entries) do
      if entry.wait ~= 0 and entry.may_refuse and not (entry.liftable and extra) then
        longest = max(longest, entry.window)
      end
    end
    local reach = reach_of(longest)
    local till = from + reach
    if refusal.from > 0 then
      from = max(from, refusal.from)
      till = max(from, refusal.till)
    end
    local seats, lifted = {}, {}
    for index, entry in ipairs(entries) do
      local seat = entry.may_refuse and seat_of(refusal, index)
      if seat and entry.liftable and extra then
        lifted[#lifted + 1] = { seat = seat, from = now + never_huge(entry.wait) }
      elseif seat then
        seats[#seats + 1] = seat
      end
    end
    local at = agree(seats, from, till)
    if at > till then return { at = till, beyond = true } end
    return {
      at = at,
      promise = function()
        for _, seat in ipairs(seats) do seat.promise(at, reach) end
        for _, one in ipairs(lifted) do
          if at >= one.from then one.seat.promise(at, reach) end
        end
        if extra then note(extra, now, at, reach) end
      end,
    }
  end

  local function slot_to_reserve(refusal, wait)
    if wait == math.huge then return nil end
    refusal.reserved = true
    local slot = slot_of_refused(refusal, wait)
    refusal.reserved = nil
    if slot.beyond or slot.at > refusal.desk.till then return nil end
    return { at = slot.at, promise = function() refusal.desk.reserve(slot.at) end }
  end

  local function slot_with_extra(refusal, wait, extra, from)
    local now, state = refusal.now, extra.record.state
    local schedule = open_schedule(extra, now)
    local granted = state.granted and from < state.start + extra.capacity
    local promised = promised_from(schedule, from)
    if (granted and state.used or 0) + promised + extra.cost > extra.quota then return nil end
    local slot = slot_of_refused(refusal, max(wait, from - now), extra)
    local first, last = slot.at, slot.at
    for _, run in ipairs(schedule.runs) do
      if run.last >= from then
        first = min(first, run.first)
        last = max(last, run.last)
      end
    end
    if not granted and promised == 0 then return slot end
    local ends = (granted and state.start or max(first, from)) + extra.window
    return last + LATE < ends and slot or nil
  end

  return {
    never_huge = never_huge,
    slot_for = slot_beside,
    slot_of_refused = slot_of_refused,
    slot_to_reserve = slot_to_reserve,
    slot_with_extra = slot_with_extra,
    -- Whoever was admitted had the room of one who may come now.
    taken = function(entry, now)
      take_due(open_schedule(entry, now), now, entry.cost)
      keep_schedule(entry)
    end,
  }
end
