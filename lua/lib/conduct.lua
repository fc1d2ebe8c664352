-- The twin of the third part of src/policies/standing.ts: what requests tell of a client, as counts that decay, and what those
-- come to. Places of signals count from 1 here.
local EARLY, EXHAUSTED, GREEDY, NEW, MISSING, FORBIDDEN, SEQUENTIAL, SLOW = 1, 2, 3, 4, 5, 6, 7, 8
local IMPATIENCE = { EARLY, EXHAUSTED, GREEDY }
local BURSTS, ENVIRONMENTS = 11, 12
local ONE = 1000000
-- An outcome: admitted, and it cost nothing.
local FREE = 4
local UNDER_WAY, TOLERANCE, TOLD_FOR = 1000000, 250000, 120000000
local MOST_OF_KNOWN_PLACES, MOST_OF_ADDRESSES = 21, 12
local MOST_TOLD, MOST_STRAYS, MOST_PLACES, MOST_MARKED, UNMARKED, MOST_PACES = 64, 4, 8, 1024, 3, 6
local MOST_WAITING, MOST_MISSED = 32, 64
local MOST_LEEWAY, CREDIT = 32 * ONE, 5 * ONE / 4
local MOST_THRESHOLDS, MOST_WEIGHTS, MOST_SCORE, LABELS, MOST_LADDERS = 6, 5, 200000, 6, 8

local function new_conduct(signals)
  local conduct = {
    counts = {},
    told = {},
    leeway = 0,
    strays = {},
    marked = 0,
    marked_at = 0,
    missed = {},
    requests = 0,
    last = -1,
    run = 0,
    places = {},
    pace = { 0, 0, 0, 0 },
    paces = {},
    labels = {},
  }
  for signal = 1, signals do conduct.counts[signal] = { 0, 0, 0 } end
  for label = 1, LABELS do conduct.labels[label] = { 0, 0, 0 } end
  return conduct
end

-- Counts and labels that are nothing take a byte each.
local function pack_conduct(c)
  local counts, labels = {}, {}
  for signal, count in ipairs(c.counts) do counts[signal] = count[1] == 0 and count[3] == 0 and 0 or count end
  for label, incident in ipairs(c.labels) do labels[label] = incident[1] == 0 and 0 or incident end
  local numbers = { c.marked, c.requests, c.last, c.run, c.marked_at, c.leeway }
  return cmsgpack.pack({ counts, c.told, c.strays, c.places, labels, numbers, c.pace, c.paces, c.missed })
end

local function unpack_conduct(bytes, signals)
  local conduct = new_conduct(signals)
  if not bytes then return conduct end
  local read = cmsgpack.unpack(bytes)
  for signal = 1, signals do
    local count = read[1][signal]
    if count and count ~= 0 then conduct.counts[signal] = count end
  end
  conduct.told, conduct.strays, conduct.places = read[2], read[3], read[4]
  for label = 1, LABELS do
    if read[5][label] ~= 0 then conduct.labels[label] = read[5][label] end
  end
  local numbers = read[6]
  conduct.marked, conduct.requests, conduct.last, conduct.run = numbers[1], numbers[2], numbers[3], numbers[4]
  conduct.marked_at, conduct.pace, conduct.paces = numbers[5], read[7] or conduct.pace, read[8] or conduct.paces
  conduct.missed = read[9] or conduct.missed
  conduct.leeway = numbers[6] or conduct.leeway
  return conduct
end

local function value_of(c, rules, signal, now)
  return decayed(c.counts[signal][1], c.counts[signal][2], now, rules[signal].half_life)
end

local function add(c, rules, signal, amount, now, touched)
  local count = c.counts[signal]
  local value = value_of(c, rules, signal, now) + amount
  count[1] = math.max(0, math.min(value, MOST_THRESHOLDS * rules[signal].threshold))
  count[2] = now
  if count[1] == 0 then
    count[3] = 0
  elseif count[3] == 0 then
    count[3] = now
  end
  if amount > 0 then touched[signal] = true end
end

local function mark_target(c, key, target, half_life, now)
  if not key then return false end
  if c.marked >= MOST_MARKED or now - c.marked_at > 2 * half_life then
    redis.call('UNLINK', key)
    c.marked = 0
  end
  local is_new = redis.call('SETBIT', key, string.format('%.0f', target), 1) == 0
  if is_new then
    c.marked = c.marked + 1
    c.marked_at = now
  end
  return is_new
end

local function is_refused(event) return event.outcome == 2 or event.outcome == 3 end

local function signals_of_miss(result)
  return { result == 2 and MISSING or FORBIDDEN, SLOW }
end

local function take_back(c, rules, target, now, plus)
  local kept = {}
  for _, miss in ipairs(c.missed) do
    if miss[1] ~= target then
      kept[#kept + 1] = miss
    else
      for _, signal in ipairs(signals_of_miss(miss[3])) do
        plus(signal, -decayed(ONE, miss[2], now, rules[signal].half_life))
      end
    end
  end
  c.missed = kept
end

local function take_told(c, event, at)
  local kept = {}
  for _, told in ipairs(c.told) do
    if told[2] + TOLD_FOR >= at then kept[#kept + 1] = told end
  end
  c.told = kept
  local waiting, first_told, due = 0, math.huge, nil
  for index, told in ipairs(kept) do
    if told[1] == event.tag then
      waiting = waiting + 1
      first_told = math.min(first_told, told[3])
      if told[2] - TOLERANCE <= at and (not due or told[2] < kept[due][2]) then due = index end
    end
  end
  local many = waiting >= MOST_WAITING or (waiting > 0 and #kept >= MOST_TOLD)
  local early = many and not due and is_refused(event) and at > first_told + UNDER_WAY
  if due then table.remove(kept, due) end
  if event.outcome == 2 and #kept < MOST_TOLD then kept[#kept + 1] = { event.tag, event.told, at, event.target } end
  return early, event.outcome == 1 and (due ~= nil or many)
end

local function note_stray(c, endpoint)
  for _, stray in ipairs(c.strays) do
    if stray == endpoint then return end
  end
  c.strays[#c.strays + 1] = endpoint
  if #c.strays > MOST_STRAYS then table.remove(c.strays, 1) end
end

local function distinct(rows, column)
  local seen, count = {}, 0
  for _, row in ipairs(rows) do
    if not seen[row[column]] then
      seen[row[column]] = true
      count = count + 1
    end
  end
  return count
end

local function note_place(c, event, half_life, now, plus_up_to)
  local kept, others, own, last = {}, {}, nil, 0
  for _, place in ipairs(c.places) do
    if place[3] > now - half_life then
      kept[#kept + 1] = place
      if place[1] == event.place and place[2] == event.software then
        own, last = #kept, place[3]
      elseif place[1] ~= event.place and place[2] ~= event.software then
        others[#others + 1] = place
      end
    end
  end
  c.places = kept
  local used = false
  for _, other in ipairs(others) do
    if other[3] >= last then used = true end
  end
  if used then
    local hands = math.min(distinct(others, 1), distinct(others, 2))
    if event.known == 1 then
      plus_up_to(ENVIRONMENTS, hands >= 2 and ONE or ONE / 4, MOST_OF_KNOWN_PLACES)
    elseif hands >= 4 then
      plus_up_to(ENVIRONMENTS, (math.min(hands, 7) - 3) * ONE / 4, MOST_OF_ADDRESSES)
    end
  end
  if own then
    table.remove(kept, own)
  elseif #kept >= MOST_PLACES then
    table.remove(kept, 1)
  end
  kept[#kept + 1] = { event.place, event.software, now }
end

local function is_burst(pace, half_life, now)
  pace[1] = math.min(decayed(pace[1], pace[3], now, math.floor(half_life / 20)) + ONE, 1000 * ONE)
  pace[2] = math.min(decayed(pace[2], pace[3], now, half_life * 6) + ONE, 8000 * ONE)
  pace[3] = now
  return pace[2] >= 50 * ONE and pace[1] >= 30 * ONE and pace[1] * 15 > pace[2]
end

local function note_burst(c, endpoint, half_life, now, plus)
  local pace, own = { 0, 0, 0, endpoint }, nil
  for index, known in ipairs(c.paces) do
    if known[4] == endpoint then own = index end
  end
  if own then
    pace = table.remove(c.paces, own)
  elseif #c.paces >= MOST_PACES then
    table.remove(c.paces, 1)
  end
  c.paces[#c.paces + 1] = pace
  local in_all = is_burst(c.pace, half_life, now)
  if is_burst(pace, half_life, now) or in_all then plus(BURSTS, ONE) end
end

local function observe(c, key, event, rules, half_life, now, touched)
  local function plus(signal, amount) add(c, rules, signal, amount, now, touched) end
  for index = 1, #event.adds, 2 do plus(event.adds[index] + 1, event.adds[index + 1]) end
  if event.outcome ~= 0 then
    local at = (event.at > 0 and event.at < now) and event.at or now
    c.requests = math.min(c.requests + 1, 1000)
    local is_new = event.target >= 0 and c.requests > UNMARKED and mark_target(c, key, event.target, half_life, now)
    local is_retry = false
    for _, told in ipairs(c.told) do
      if told[1] == event.tag and told[4] == event.target then is_retry = true end
    end
    local early, admitted = false, false
    if event.outcome ~= FREE then early, admitted = take_told(c, event, at) end
    if admitted then
      local rest = CREDIT
      for _, signal in ipairs(IMPATIENCE) do
        rest = math.min(rest, CREDIT - value_of(c, rules, signal, now))
        plus(signal, -CREDIT)
      end
      if rest > 0 then c.leeway = math.max(0, c.leeway - rest) end
    elseif early and c.leeway < MOST_LEEWAY then
      c.leeway = c.leeway + ONE
    elseif early then
      note_stray(c, event.endpoint)
      if not is_retry and (is_new or value_of(c, rules, NEW, now) >= rules[NEW].threshold) then
        plus(GREEDY, ONE)
      else
        plus(#c.strays >= 3 and EXHAUSTED or EARLY, ONE)
      end
    end
    if #c.strays > 0 then
      local left = value_of(c, rules, EARLY, now) + value_of(c, rules, EXHAUSTED, now) + value_of(c, rules, GREEDY, now)
      if left < ONE then c.strays = {} end
    end

    if event.sequence >= 0 then
      local apart = math.abs(event.sequence - c.last)
      c.run = (c.last >= 0 and apart >= 1 and apart <= 3) and math.min(c.run + 1, 1000) or 0
      c.last = event.sequence
      if c.run >= 3 then plus(SEQUENTIAL, ONE) end
    end
    if event.result == 1 then
      if is_new then plus(NEW, ONE) end
      take_back(c, rules, event.target, now, plus)
      if event.outcome ~= FREE then
        for _, signal in ipairs({ MISSING, FORBIDDEN, SLOW }) do plus(signal, -ONE / 4) end
      end
    elseif event.result == 4 then
      if is_new then plus(NEW, ONE) end
    elseif event.result >= 2 then
      if is_new or c.requests <= UNMARKED then
        for _, signal in ipairs(signals_of_miss(event.result)) do plus(signal, ONE) end
        if event.target >= 0 then c.missed[#c.missed + 1] = { event.target, now, event.result } end
        if #c.missed > MOST_MISSED then table.remove(c.missed, 1) end
      end
    elseif is_refused(event) and is_new and value_of(c, rules, MISSING, now) * 4 < value_of(c, rules, NEW, now) then
      plus(NEW, ONE)
    end

    note_burst(c, event.endpoint, half_life, now, plus)
  end
  local function plus_up_to(signal, amount, most)
    local room = math.floor(most * rules[signal].threshold / 10) - value_of(c, rules, signal, now)
    if room > 0 then plus(signal, math.min(amount, room)) end
  end
  if event.software ~= 0 then note_place(c, event, half_life, now, plus_up_to) end
end

local function steps_on(ladder, step, known, score, left)
  if step == 0 and #known == 0 then return known end
  local name, steps = name_of(ladder, 1), {}
  for _, one in ipairs(known) do
    if one[1] ~= name then steps[#steps + 1] = { one[1], one[2], math.min(one[3], left) } end
  end
  if step > 0 then steps[#steps + 1] = { name, step, score } end
  if #steps > MOST_LADDERS then table.remove(steps, 1) end
  return steps
end

local function pack_standing(standing)
  local parts = { struct.pack('<I4I7I7I4', standing.score, standing.at, standing.offence, standing.signals) }
  for _, one in ipairs(standing.steps) do parts[#parts + 1] = struct.pack('<I4I1I4', one[1], one[2], one[3]) end
  return table.concat(parts)
end

-- Makes a standing of a conduct, and tells what is new: the standing, the step before, which labels began, which changed, and the counts.
local function judge(c, standing, rules, half_life, ladder, now, touched)
  local values, score, slight, signals, offended, seen = {}, 0, 0, 0, false, {}
  for signal in ipairs(rules) do values[signal] = value_of(c, rules, signal, now) end
  local left, before = score_now(standing, ladder, 1, half_life, now)
  for signal, rule in ipairs(rules) do
    local needed = rule.needs == 0 or values[rule.needs] >= rules[rule.needs].threshold
    if rule.weight > 0 and needed and values[signal] >= rule.threshold then
      local points = math.floor(rule.weight * math.min(values[signal], MOST_WEIGHTS * rule.threshold) / rule.threshold)
      if rule.label ~= 0 then score = score + points else slight = math.max(slight, points) end
      signals = signals + 2 ^ (signal - 1)
      if touched[signal] then
        offended = true
        if rule.label ~= 0 then seen[rule.label] = true end
      end
    end
  end
  -- A count that falls below its threshold ends nothing at once: the score falls as it would have without another request.
  score = math.max(left, math.min(score + slight, MOST_SCORE))
  local step = step_on(ladder, 1, before, score)
  if not offended then step = math.min(before, step) end
  local began, changed = 0, 0
  for label, incident in ipairs(c.labels) do
    if seen[label] then
      if incident[1] == 0 or now - incident[2] > 6 * half_life then
        incident[1], incident[3] = now, 0
        began = began + 2 ^ (label - 1)
      end
      incident[2] = now
      if step ~= before or now - incident[3] >= half_life then
        incident[3] = now
        changed = changed + 2 ^ (label - 1)
      end
    end
  end
  local offence = offended and now or (standing and standing.offence or 0)
  local steps = steps_on(ladder, step, (standing and not is_over(standing, now)) and standing.steps or {}, score, left)
  local made = { score = score, step = step, steps = steps, at = now, offence = offence, signals = signals }
  return made, before, began, changed, values
end

local function remembered_until(c, rules, half_life, now)
  local last = now + 2 * half_life
  for signal, count in ipairs(c.counts) do
    local halves, left = 0, count[1]
    while left >= ONE / 2 do
      left = math.floor(left / 2)
      halves = halves + 1
    end
    if halves > 0 then last = math.max(last, count[2] + halves * rules[signal].half_life) end
  end
  for _, incident in ipairs(c.labels) do
    if incident[2] > 0 then last = math.max(last, incident[2] + 6 * half_life) end
  end
  return last
end
