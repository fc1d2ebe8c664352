-- Decides requests: for each, either every policy admits and every one is charged, or none is.
--
-- KEYS   of each decision in turn: the keys its plan counts on, from 1: partitions, and what logs, leases and targets have of
--        their own, which carries the same hash tag.
-- ARGV   one plan a decision, a JSON array, of whole numbers but for members (times in microseconds):
--        commit (1; 0 looks and changes nothing), how many keys, how many entries to undo, how many to charge, then the
--        entries, twelve each: key, own key (or 0), kind, state id, window, quota, capacity, cost, extra (0, or an array of
--        members, or a calendar: spread, origin, first day of months), and
--        at an undo: when it was charged, which members were new, 0;
--        at a charge: 0, 1 if it is for slots that come back by their leases alone, and the sum of 1 if the first minutes' extra may stand in for it, 2 if it only watches (shadow),
--        4 if it is charged afterwards and only needs room for one to start, and of a pool that tiers share, 8 for the tier's own
--        part, then 16 for the common part, then 24 for the demand for it, whose extra is seats, seat, seats that go first.
-- RETURNS one flat row of integers. A decision: admitted (1 or 0), the time, the wait until the same is admitted
--        (0 when it was, -1 when never); then for each charge: verdict (0 refused, 1 fits, 2 lifted, 3 inactive, 4 spared), remaining,
--        wait until as much fits again (-1 never), time until nothing used counts any more, which members were new.
-- COMMANDS TIME GET SET UNLINK LINDEX LRANGE LSET RPUSH LREM LTRIM PEXPIRE ZADD ZREM ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE
--          ZREMRANGEBYSCORE

--- include lib/partition.lua
--- include lib/token-bucket.lua
--- include lib/sliding-window.lua
--- include lib/sliding-log.lua
--- include lib/fixed-window.lua
--- include lib/first-minutes.lua
--- include lib/concurrency.lua
--- include lib/failures.lua
--- include lib/unique-targets.lua
--- include lib/pool-demand.lua

local FIRST_MINUTES = 5
local LIFTABLE, SHADOW, AFTER = 1, 2, 4
local OWN, COMMON, DEMAND = 8, 16, 24
local REFUSED, FITS, LIFTED, INACTIVE, SPARED = 0, 1, 2, 3, 4
local SECOND = 1000000

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
      local of_common = longer(entry.wait, entries[index + 1].wait)
      entry.spared = own == 0
      if own >= 0 and (of_common < 0 or own < of_common) then of_common = own end
      entry.wait = of_common
    elseif entry.role == DEMAND then
      entry.spared = entries[index - 1].spared
    end
  end
end

local function decide(plan, base, now, answer)
  local commit = plan[1] == 1
  local undos, charges = plan[3], plan[4]
  local partitions = {}

  local function open(entry)
    local partition = partitions[entry.key]
    if not partition then
      partition = load_partition(entry.key)
      partitions[entry.key] = partition
    end
    return open_record(partition, entry, now), partition
  end

  local from = 5
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

  -- What each policy says on its own. The first minutes' extra never refuses: it stands in for those it may lift.
  local entries, extra = {}, nil
  for index = 1, charges do
    local entry = read_entry(plan, from, base, commit)
    entry.record, entry.partition = open(entry)
    entry.role = entry.does - entry.does % OWN
    entry.after = entry.does % OWN >= AFTER
    entry.shadow = entry.does % AFTER == SHADOW
    entry.liftable = entry.does % AFTER == LIFTABLE
    entry.wait = 0
    local cost = entry.after and 1 or entry.cost
    if entry.kind == FIRST_MINUTES then
      extra = entry
    elseif cost > 0 then
      entry.wait = wait_for(entry.record, entry, now, cost)
    end
    entries[index] = entry
    from = from + 12
  end
  share_pools(entries)
  local hard_wait, lifted_wait = 0, 0
  for index = 1, charges do
    local entry = entries[index]
    if entry.liftable then
      lifted_wait = longer(lifted_wait, entry.wait)
    elseif not entry.shadow and entry.role ~= OWN and entry.role ~= DEMAND then
      hard_wait = longer(hard_wait, entry.wait)
    end
  end
  local hard, soft = hard_wait ~= 0, lifted_wait ~= 0
  local lifts, extra_ends = false, 0
  if extra then
    extra_ends = extra.record.state.start + extra.window
    lifts = now < extra_ends and extra.record.state.used + extra.cost <= extra.quota
  end
  local admitted = not hard and (not soft or lifts)

  -- What those who go first ask for is noted even when they do not get it: the others make room. Not what the pool can never
  -- give, nor what something else refuses, or one client that is out of its own quota would hold up all who go after it.
  local refused_elsewhere = false
  for index = 1, charges do
    local entry = entries[index]
    if entry.role == 0 and not entry.shadow and entry.wait ~= 0 and not (entry.liftable and lifts) then
      refused_elsewhere = true
    end
  end
  if commit and not refused_elsewhere then
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

  local wait = 0
  if not admitted then
    -- Those that no request was admitted with have not begun: they lift whenever it comes.
    local begun = extra and extra.record.state.granted
    if lifts and hard_wait >= 0 and (not begun or now + hard_wait + SECOND < extra_ends) then
      wait = hard_wait
    else
      if extra and lifted_wait > 0 and extra.cost <= extra.quota then
        lifted_wait = math.min(lifted_wait, extra.record.state.start + extra.capacity - now)
      end
      wait = longer(hard_wait, lifted_wait)
    end
  elseif commit then
    for index = 1, charges do
      local entry = entries[index]
      if entry == extra then
        extra.record.algorithm.charge(extra.record.state, extra, now, soft and extra.cost or 0)
        keep(entry.partition, entry.record)
      elseif entry.wait == 0 and entry.cost > 0 and not entry.after and not entry.spared then
        entry.new = entry.record.algorithm.charge(entry.record.state, entry, now, entry.cost)
        keep(entry.partition, entry.record)
      end
    end
  end

  local size = #answer
  answer[size + 1] = admitted and 1 or 0
  answer[size + 2] = now
  answer[size + 3] = wait
  size = size + 3
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
    answer[size + 2] = algorithm.remaining(state, entry, now)
    answer[size + 3] = wait_for_another(entry.record, entry, now)
    answer[size + 4] = math.max(0, algorithm.expires(state, entry, now) - now)
    answer[size + 5] = entry.new or 0
    size = size + 5
  end

  if commit then
    for _, partition in pairs(partitions) do
      if partition.dirty then save_partition(partition, now) end
    end
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
local base = 0
for index = 1, #ARGV do
  local plan = cjson.decode(ARGV[index])
  decide(plan, base, now, answer)
  base = base + plan[2]
end
return answer
