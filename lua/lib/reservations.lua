-- The twin of src/policies/reservations.ts and of src/stores/ticket-desk.ts, where all of it is explained. Reservations are a record
-- of their own beside that of their policy, while there are any. Packed: how many, then each: slot (7 bytes), cost (7), id (6),
-- client (4); then each lapse: client (4), at (7).
local RESERVATIONS_ID = 1908729693

local reservations

-- Made when first needed: most limiters have no tickets.
local function make_reservations()
  local FIRST_MINUTES, FIXED_WINDOW, SINGLE_USE = 5, 4, 10
  local RESERVED, UNEVEN = 2001000, 4
  local most_reservations, most_lapses, part_of_client, most_runs = 64, 16, 16, 6
  local longest_lapse, rounded_off = 3600000000, 4
  local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
  local NOTHING = { kept = {}, lapses = {} }

  local function lapse_us(window)
    return min(window, longest_lapse)
  end

  local packing = {
    pack = function(book, limit, now)
      local lasts, ends = lapse_us(limit.window), now
      local parts = { struct.pack('<B', #book.kept) }
      for _, one in ipairs(book.kept) do
        parts[#parts + 1] = struct.pack('<I7I7I6I4', one.slot, one.cost, one.id, one.client)
        ends = max(ends, one.slot + RESERVED + lasts)
      end
      for _, lapse in ipairs(book.lapses) do
        parts[#parts + 1] = struct.pack('<I4I7', lapse.client, lapse.at)
        ends = max(ends, lapse.at + lasts)
      end
      return table.concat(parts), ends
    end,
  }

  local function unpack_book(bytes)
    local book = { kept = {}, lapses = {} }
    local from = 2
    for index = 1, string.byte(bytes, 1) do
      local slot, cost, id, client = struct.unpack('<I7I7I6I4', bytes, from)
      book.kept[index] = { slot = slot, cost = cost, id = id, client = client }
      from = from + 24
    end
    while from < #bytes do
      local client, at = struct.unpack('<I4I7', bytes, from)
      book.lapses[#book.lapses + 1] = { client = client, at = at }
      from = from + 11
    end
    return book
  end

  local function keep_book(entry)
    local partition = entry.partition
    local id = (entry.id + RESERVATIONS_ID) % 4294967296
    local record = partition.records[id]
    if not record then
      record = { expires = 0 }
      partition.records[id] = record
      partition.order[#partition.order + 1] = id
    end
    record.algorithm, record.state, record.limit = packing, entry.book, entry
    keep(partition, record)
  end

  local function note_lapse(lapses, client, at)
    local place
    for index, lapse in ipairs(lapses) do
      if lapse.client == client then place = index end
    end
    if place or #lapses == most_lapses then table.remove(lapses, place or 1) end
    lapses[#lapses + 1] = { client = client, at = at }
  end

  local function drop_late(book, window, now)
    local lasts = lapse_us(window)
    local late = #book.kept > 0 and book.kept[1].slot + RESERVED <= now
    if not late and not (#book.lapses > 0 and book.lapses[1].at + lasts <= now) then return false end
    local kept, lapses = {}, {}
    for _, lapse in ipairs(book.lapses) do
      if lapse.at + lasts > now then lapses[#lapses + 1] = lapse end
    end
    for _, one in ipairs(book.kept) do
      local at = one.slot + RESERVED
      if at > now then
        kept[#kept + 1] = one
      elseif at + lasts > now then
        note_lapse(lapses, one.client, at)
      end
    end
    book.kept, book.lapses = kept, lapses
    return true
  end

  local function open_book(entry, commit, now)
    local record = entry.partition.records[(entry.id + RESERVATIONS_ID) % 4294967296]
    if not record then
      entry.book = NOTHING
      return
    end
    entry.book = record.state or unpack_book(record.bytes)
    if drop_late(entry.book, entry.window, now) and commit then keep_book(entry) end
  end

  local function units_of(book)
    local sum = 0
    for _, one in ipairs(book.kept) do sum = sum + one.cost end
    return sum
  end

  local function may_reserve(book, cost, most, shared_by)
    if #book.kept >= most_reservations then return false end
    local all, own, count = cost, cost, 1
    for _, one in ipairs(book.kept) do
      all = all + one.cost
      if one.client == shared_by then
        own = own + one.cost
        count = count + 1
      end
    end
    if all > max(cost, most) then return false end
    if not shared_by then return true end
    return own <= max(cost, floor(most / part_of_client)) and count <= most_reservations / part_of_client
  end

  local function pace_leaves(room, kept, now, cost)
    local scale, quota, weight = room.scale, room.quota, room.weight
    local brim = room.capacity * weight

    local function heavy(units)
      return units * weight + (scale == 1 and 0 or rounded_off)
    end

    local function after(lacking, us)
      return max(0, lacking - (max(0, us) * quota) / scale)
    end

    local time = max(now, room.at)
    local lacking = after(room.deficit, now - room.at) + heavy(cost)
    local due, over = 0, 1
    for _, one in ipairs(kept) do
      local from = max(now, one.slot)
      while kept[over].slot + RESERVED <= from do
        local ends = kept[over].slot + RESERVED
        lacking = after(lacking, ends - time) + heavy(kept[over].cost)
        time = max(time, ends)
        due = due - heavy(kept[over].cost)
        over = over + 1
      end
      due = due + heavy(one.cost)
      if after(lacking, from - time) + due > brim then return false end
    end
    return true
  end

  local function window_leaves(room, kept, now, cost)
    local window, cell = room.window, room.cell

    local function gone_at(time)
      if cell == 0 then return window + time end
      return window + (floor(time / cell) + 1) * cell
    end

    local own_gone, reserved, gone = gone_at(now), 0, 1
    for _, one in ipairs(kept) do
      local from = max(now, one.slot)
      reserved = reserved + one.cost
      while gone_at(kept[gone].slot + RESERVED) <= from do
        reserved = reserved - kept[gone].cost
        gone = gone + 1
      end
      local own = 0
      if from < own_gone then own = cost end
      if room.used_at(from) + reserved + own > room.quota then return false end
    end
    return true
  end

  local function join_closest(runs)
    local closest, width = 1, math.huge
    for index = 1, #runs - 1 do
      local span = runs[index + 1].last - runs[index].first
      if span < width then closest, width = index, span end
    end
    local one, other = runs[closest], table.remove(runs, closest + 1)

    local function units(run)
      if run.count == 0 then return run.cost end
      return run.count * run.cost
    end

    local cost = units(one) + units(other)
    runs[closest] = { first = one.first, last = other.last, count = 0, cost = cost, rounded = 3 }
  end

  local function runs_of(entry)
    if entry.reserved then return entry.reserved end
    local runs, kept, index = {}, entry.book.kept, 1
    while index <= #kept do
      local first, cost = kept[index].slot, kept[index].cost
      local count, last, least, most = 1, first, 0, math.huge
      for following = index + 1, #kept do
        local slot = kept[following].slot
        local step = (slot - first) / count
        if kept[following].cost ~= cost or slot <= last or step < least or step > most then break end
        least = max(least, (slot - first - UNEVEN) / count)
        most = min(most, (slot - first + UNEVEN) / count)
        last = slot
        count = count + 1
      end
      local shift = count == 1 and 0 or UNEVEN
      runs[#runs + 1] = { first = first - shift, last = last - shift, count = count, cost = cost, rounded = 3 }
      index = index + count
    end
    while #runs > most_runs do join_closest(runs) end
    entry.reserved = runs
    return runs
  end

  local function after_all(room, book, from, cost)
    local ends = max(from, book.kept[#book.kept].slot + RESERVED)
    if not room.refills then return ends + room.window + room.cell end
    local units = (units_of(book) + cost - room.capacity) * room.weight
    if room.scale ~= 1 then units = units + rounded_off * #book.kept end
    return max(ends, room.at) + max(0, ceil(((room.deficit + units) * room.scale) / room.quota))
  end

  local function reservable(entry)
    if entry.kind == FIRST_MINUTES or entry.shadow or entry.after or entry.cost == 0 or entry.role ~= 0 then return false end
    return entry.record.algorithm.room ~= nil and not (entry.kind == FIXED_WINDOW and entry.extra)
  end

  local function free(entry)
    local kind = entry.kind
    return kind == FIRST_MINUTES or kind == SINGLE_USE or kind == STANDING or entry.shadow or (entry.cost == 0 and not entry.after)
  end

  local function look_up(entries, id, slot, for_all, now)
    local count = 0
    for _, entry in ipairs(entries) do
      if entry.book then
        count = count + 1
        local found = false
        for _, one in ipairs(entry.book.kept) do
          if one.id == id and one.slot == slot then found = true end
        end
        if not found then return slot + RESERVED <= now and 'lapsed' or 'used' end
      end
    end
    if count == 0 or not for_all then return 'used' end
    return now < slot and 'early' or 'kept'
  end

  local function within(entries, share, client, now)
    local shortest = math.huge
    for _, entry in ipairs(entries) do
      if entry.book then shortest = min(shortest, lapse_us(entry.window)) end
    end
    if shortest == math.huge or share == 0 then return false end
    for _, entry in ipairs(entries) do
      if entry.book then
        for _, lapse in ipairs(entry.book.lapses) do
          if lapse.client == client and lapse.at + shortest > now then return false end
        end
        local shared_by = entry.at ~= 0 and client or nil
        if not may_reserve(entry.book, entry.cost, floor(share * entry.quota), shared_by) then return false end
      end
    end
    return true
  end

  local function leaves_room(entry, now)
    local kept = entry.book.kept
    if #kept == 0 then return true end
    local room = entry.record.algorithm.room(entry.record.state, entry, now)
    if room.refills then return pace_leaves(room, kept, now, entry.cost), room end
    return window_leaves(room, kept, now, entry.cost), room
  end

  -- `terms` are the last six of a plan. Waits are -1 where they never end.
  return function(entries, terms, commit, promises, now)
    local for_all = true
    for _, entry in ipairs(entries) do
      if reservable(entry) then
        open_book(entry, commit, now)
      elseif not free(entry) then
        for_all = false
      end
    end
    local shown
    if terms.shown ~= 0 then shown = look_up(entries, terms.shown, terms.shown_slot, for_all, now) end
    for _, entry in ipairs(entries) do
      if not entry.book then
        -- It has no say.
      elseif shown == 'kept' then
        entry.wait = 0
      elseif shown == 'early' then
        entry.wait = terms.shown_slot - now
      elseif #entry.book.kept > 0 and entry.wait >= 0 then
        local leaves, room = leaves_room(entry, now)
        if entry.wait > 0 or not leaves then
          local from = now + max(1, entry.wait)
          schedules = schedules or make_schedules()
          local slot = schedules.slot_for(room, runs_of(entry), from, entry.cost)
          if slot == math.huge then slot = after_all(room, entry.book, from, entry.cost) end
          entry.wait = slot - now
        end
      end
    end

    local desk = { shown = shown, runs_of = runs_of }
    if commit and promises and shown ~= 'early' and shown ~= 'kept' and for_all then
      if within(entries, terms.share, terms.client, now) then desk.till = now + terms.horizon end
    end

    function desk.reserve(slot)
      for _, entry in ipairs(entries) do
        if entry.book then
          local kept = { unpack(entry.book.kept) }
          local index = #kept + 1
          while index > 1 and kept[index - 1].slot > slot do index = index - 1 end
          table.insert(kept, index, { slot = slot, cost = entry.cost, id = terms.id, client = terms.client })
          entry.book = { kept = kept, lapses = entry.book.lapses }
          keep_book(entry)
        end
      end
    end

    function desk.redeem()
      for _, entry in ipairs(entries) do
        if entry.book then
          local kept = {}
          for _, one in ipairs(entry.book.kept) do
            if one.id ~= terms.shown then kept[#kept + 1] = one end
          end
          entry.book = { kept = kept, lapses = entry.book.lapses }
          keep_book(entry)
        end
      end
    end

    function desk.units_of(entry)
      return entry.book and units_of(entry.book) or 0
    end

    return desk
  end
end
