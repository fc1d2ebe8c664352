-- All policies or none: the twin of src/stores/together.ts, step by step the same.
local FIRST_MINUTES, CREDITS = 5, 12
local LIFTABLE, SHADOW = 1, 2
local OWN, COMMON, DEMAND = 8, 16, 24
local REFUSED, FITS, LIFTED, INACTIVE, SPARED = 0, 1, 2, 3, 4
local SHOWN = { none = 0, redeemed = 1, early = 2, kept = 3, lapsed = 4, used = 5 }

local function finite(wait)
  if wait == math.huge then return -1 end
  return wait
end

-- How long until a cost fits: 0 when it does, -1 when it never will.
local function wait_for(record, limit, now, cost)
  local algorithm = record.algorithm
  if algorithm.needs then cost = algorithm.needs(record.state, limit, now) end
  if cost == 0 then return 0 end
  if cost > limit.capacity and limit.kind ~= FIRST_MINUTES then return -1 end
  return finite(algorithm.earliest(record.state, limit, now, cost) - now)
end

-- How long until there is room for as much again: of what is counted by name, for one that is new.
local function wait_for_another(record, limit, now)
  local algorithm, cost = record.algorithm, limit.after and 1 or math.max(limit.cost, 1)
  if algorithm.needs then
    cost = 1
    limit.extra = {}
  end
  if cost > limit.capacity and limit.kind ~= FIRST_MINUTES then return -1 end
  return finite(algorithm.earliest(record.state, limit, now, cost) - now)
end

-- The longer of two waits, of which -1 is the longest.
local function longer(one, other)
  if one < 0 or other < 0 then return -1 end
  return math.max(one, other)
end

-- Brings together what a pool's three charges say: the common one waits for its own part or for those who go first, whichever the
-- pool has room for sooner, and neither of them is needed while a tier has some of its own left.
local function share_pools(entries)
  for index, entry in ipairs(entries) do
    if entry.role == COMMON then
      local own = entries[index - 1].wait
      entry.own_wait = entry.wait
      local of_common = longer(entry.wait, entries[index + 1].wait)
      entry.spared = own == 0
      if own >= 0 and (of_common < 0 or own < of_common) then of_common = own end
      entry.wait = of_common
    elseif entry.role == DEMAND then
      entry.spared = entries[index - 1].spared
    end
  end
end

-- The longest waits: of those that refuse whatever happens, and of those that the first minutes' extra may lift.
local function longest_waits(entries)
  local hard_wait, lifted_wait = 0, 0
  for _, entry in ipairs(entries) do
    if entry.liftable then
      lifted_wait = longer(lifted_wait, entry.wait)
    elseif entry.may_refuse then
      hard_wait = longer(hard_wait, entry.wait)
    end
  end
  return hard_wait, lifted_wait
end

-- Whether what was refused would fit if nothing were cut, what was used as it stands. `from`: where the plan has the bases. What
-- it changes in the entries is put back.
local function fits_at_base(plan, from, entries, extra, now)
  local cut = {}
  for index, entry in ipairs(entries) do
    cut[index] = { entry.quota, entry.capacity, entry.wait, entry.own_wait, entry.spared }
    entry.quota, entry.capacity = plan[from + 2 * index - 2], plan[from + 2 * index - 1]
    entry.wait = entry.own_wait
    if entry.wait ~= 0 then entry.wait = wait_for(entry.record, entry, now, entry.after and 1 or entry.cost) end
  end
  share_pools(entries)
  local hard_wait, lifted_wait = longest_waits(entries)
  local lifts = extra and now < extra.record.state.start + extra.window
    and extra.record.state.used + extra.cost <= extra.quota
  for index, entry in ipairs(entries) do
    entry.quota, entry.capacity, entry.wait, entry.own_wait, entry.spared = unpack(cut[index], 1, 5)
  end
  return hard_wait == 0 and (lifted_wait == 0 or lifts)
end

local function decide(plan, base, now, answer)
  local commit = plan[1] == 1
  local undos, charges = plan[3], plan[4]
  local partitions = {}

  local function open(entry)
    local partition = partitions[entry.key]
    if not partition then
      partition = load_partition(entry.key, held[entry.key], entry.apart)
      partitions[entry.key] = partition
    end
    return open_record(partition, entry, now), partition
  end

  local promising = plan[5] > 0
  local from = 7
  for _ = 1, undos do
    if commit then
      local entry = read_entry(plan, from, base, true, true)
      local record, partition = open(entry)
      if entry.cost > 0 then
        record.algorithm.refund(record.state, entry, now, entry.at, entry.cost, entry.added)
      end
      keep(partition, record)
    end
    from = from + 12
  end

  -- A standing that throttles leaves a part of the client's own quotas, and no extra.
  local standing, share = nil, 1000
  if charges > 0 and plan[from + 12 * charges - 10] == STANDING then
    standing = read_entry(plan, from + 12 * (charges - 1), base, commit)
    share = algorithm_of(STANDING).share_left(open(standing).state, standing)
  end

  -- What each policy says on its own. The first minutes' extra never refuses: it stands in for those it may lift.
  local entries, extra = {}, nil
  for index = 1, charges do
    local entry = index == charges and standing or read_entry(plan, from, base, commit)
    entry.role = entry.does - entry.does % OWN
    if share < 1000 and entry.key == standing.key then throttle(entry, share) end
    entry.record, entry.partition = open(entry)
    entry.after = entry.does % OWN >= AFTER
    entry.shadow = entry.does % AFTER == SHADOW
    entry.liftable = entry.does % AFTER == LIFTABLE
    entry.may_refuse = entry.kind ~= FIRST_MINUTES and entry.kind ~= CREDITS and not entry.shadow and entry.role ~= OWN and entry.role ~= DEMAND
    entry.wait = 0
    local cost = entry.after and 1 or entry.cost
    if entry.kind == FIRST_MINUTES then
      extra = entry
    elseif cost > 0 then
      entry.wait = wait_for(entry.record, entry, now, cost)
    end
    entry.own_wait = entry.wait
    entries[index] = entry
    from = from + 12
  end
  local desk, bases
  if plan[from] == -1 then
    bases = from + 1
  elseif plan[from] then
    if plan[from + 6] then bases = from + 6 end
    local share, horizon, id, client, shown, shown_slot = unpack(plan, from, from + 5)
    local terms = { share = share, horizon = horizon, id = id, client = client, shown = shown, shown_slot = shown_slot }
    reservations = reservations or make_reservations()
    desk = reservations(entries, terms, commit, plan[5] == 0, now)
    for index = 1, charges do entries[index].own_wait = entries[index].wait end
  end
  local early = desk and desk.shown == 'early'
  share_pools(entries)
  local hard_wait, lifted_wait = longest_waits(entries)
  -- Limits come before money: what is unpaid refuses only what they admit.
  local unpaid = false
  for index = 1, charges do
    local entry = entries[index]
    if entry.kind == CREDITS and entry.wait ~= 0 then unpaid = true end
  end
  local hard, soft = hard_wait ~= 0, lifted_wait ~= 0
  local lifts, extra_ends = false, 0
  if extra then
    extra_ends = extra.record.state.start + extra.window
    lifts = not early and share == 1000 and now < extra_ends and extra.record.state.used + extra.cost <= extra.quota
  end
  -- A span is for one that others refused.
  local fits = not promising and not early and not hard and (not soft or lifts)
  local admitted = fits and not unpaid

  -- What those who go first ask for is noted even when they do not get it: the others make room. Not what the pool can never
  -- give, nor what something else refuses, or one client that is out of its own quota would hold up all who go after it.
  local refused_elsewhere = false
  for index = 1, charges do
    local entry = entries[index]
    if entry.role == 0 and not entry.shadow and entry.wait ~= 0 and not (entry.liftable and lifts) then
      refused_elsewhere = true
    end
  end
  if commit and not promising and not refused_elsewhere then
    for index = 1, charges do
      local entry = entries[index]
      local noted = entry.role == DEMAND and not entry.spared and entry.cost > 0 and entry.cost <= entry.capacity
      -- Charged afterwards, it is noted when it is known.
      if noted and not (entry.after and admitted) then
        entry.record.algorithm.note(entry.record.state, entry, entry.cost)
        keep(entry.partition, entry.record)
      end
    end
  end

  local redeemed = admitted and desk and desk.shown == 'kept'
  local wait, reserved_slot = 0, 0
  if fits and unpaid then
    wait = -1
  elseif early then
    wait = longer(hard_wait, lifted_wait)
  elseif not admitted then
    schedules = schedules or make_schedules()
    local hard_until, soft_until = schedules.never_huge(hard_wait), schedules.never_huge(lifted_wait)
    local refusal = { now = now, entries = entries, common_role = COMMON, from = plan[5], till = plan[6], desk = desk }
    local slot
    if extra then
      if lifts then slot = schedules.slot_with_extra(refusal, hard_until, extra, now) end
      local renewal = extra.record.state.start + extra.capacity
      if not slot and extra.record.state.granted and soft_until < math.huge and renewal < now + soft_until then
        slot = schedules.slot_with_extra(refusal, hard_until, extra, renewal)
      end
    end
    if not slot and desk and desk.till then
      slot = schedules.slot_to_reserve(refusal, math.max(hard_until, soft_until))
      reserved_slot = slot and slot.at or 0
    end
    slot = slot or schedules.slot_of_refused(refusal, math.max(hard_until, soft_until))
    if commit and plan[5] >= 0 and slot.promise then slot.promise() end
    wait = finite(slot.at - now)
  elseif commit then
    if redeemed then desk.redeem() end
    for index = 1, charges do
      local entry = entries[index]
      if entry == extra then
        extra.record.algorithm.charge(extra.record.state, extra, now, soft and extra.cost or 0)
        keep(entry.partition, entry.record)
        if soft and schedule_record(entry.partition, entry) then
          schedules = schedules or make_schedules()
          schedules.taken(entry, now)
        end
      elseif entry.wait == 0 and entry.cost > 0 and not entry.after and not entry.spared then
        entry.new = entry.record.algorithm.charge(entry.record.state, entry, now, entry.cost)
        keep(entry.partition, entry.record)
        if not redeemed and schedule_record(entry.partition, entry) then
          schedules = schedules or make_schedules()
          schedules.taken(entry, now)
        end
      end
    end
  end

  local size = #answer
  answer[size + 1] = admitted and 1 or 0
  if not fits and not promising and not early and share == 1000 and bases and fits_at_base(plan, bases, entries, extra, now) then
    answer[size + 1] = 3
  end
  answer[size + 2] = wait
  size = size + 2
  for index = 1, charges do
    local entry = entries[index]
    local algorithm, state = entry.record.algorithm, entry.record.state
    local verdict = FITS
    if entry == extra then
      if now >= extra_ends then verdict = INACTIVE end
    elseif entry.spared then
      verdict = SPARED
    elseif entry.wait ~= 0 then
      verdict = (lifts and entry.liftable) and LIFTED or REFUSED
    end
    answer[size + 1] = verdict
    local remaining, another = algorithm.remaining(state, entry, now), wait_for_another(entry.record, entry, now)
    local kept = desk and desk.units_of(entry) or 0
    if kept > 0 then
      remaining = math.max(0, remaining - kept)
      if another >= 0 then another = math.max(another, entry.wait) end
    end
    answer[size + 2] = remaining
    answer[size + 3] = another
    answer[size + 4] = math.max(0, algorithm.expires(state, entry, now) - now)
    answer[size + 5] = entry.new or 0
    size = size + 5
  end
  if desk then
    answer[size + 1] = SHOWN[redeemed and 'redeemed' or desk.shown or 'none']
    answer[size + 2] = reserved_slot
  end

  if commit then
    for _, partition in pairs(partitions) do
      if partition.dirty then save_partition(partition, now) end
    end
  end
end
