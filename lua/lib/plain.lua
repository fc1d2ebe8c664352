-- The short way of a decision, for what nearly all of them are: amounts of windows and buckets that all have room, where nobody
-- waits and no limit or clock has changed. It decides, writes and answers as `decide` does, in one pass over the bytes of a
-- partition. Whatever is not so plain is found out before anything is written, and left to `decide`.
--
-- A shape is what decisions have in common: how many keys, how many policies, -1 if nothing is to be promised (or 0), 0 or what is
-- asked of the client's standing (key, 0 where none is the client's; state id, query), whose own key is then one more, the last; then eight a policy: key, kind, state id, window, quota, capacity, cost, what `decide` calls the sum; and where quotas are cut, two a policy:
-- quota and capacity without the cut.
local unpack_bytes, pack_bytes, bytes_of = struct.unpack, struct.pack, string.sub
local floor, ceil = math.floor, math.ceil
local HEAD, PER_POLICY = 4, 8
local STANDING, AFTER = 11, 4

-- As in lib/token-bucket.lua: what a bucket's weights and refills are divided by, as a power of ten, and what outweighs rounding.
local LARGEST_WEIGHT = 562949953421312
local JUST_BELOW, JUST_ABOVE = 1 - 2 ^ -51, 1 + 2 ^ -51

local function power_of(quota, capacity, window)
  local power, weight = 0, math.max(capacity, quota) * window
  while weight / 10 ^ power > LARGEST_WEIGHT do power = power + 1 end
  return power
end

-- Of each key of a shape: which policies it has, and what they are by the ids of their records; 0 by those of their retry schedules.
for index = 1, #shapes do
  local shape = shapes[index]
  local by_key, policies = {}, {}
  for number = 1, shape[2] do
    local from = HEAD + 1 + (number - 1) * PER_POLICY
    local id, of_key = shape[from + 2], by_key[shape[from]]
    if not of_key then
      of_key = { ids = {}, indices = {} }
      by_key[shape[from]] = of_key
    end
    of_key.indices[#of_key.indices + 1] = number
    of_key.ids[id], of_key.ids[(id + SCHEDULE_ID) % 4294967296] = number, 0
    local kind, window, quota, capacity = shape[from + 1], shape[from + 3], shape[from + 4], shape[from + 5]
    local power = kind == 1 and power_of(quota, capacity, window) or 0
    policies[number] = {
      kind = kind,
      id = id,
      window = window,
      quota = quota,
      capacity = capacity,
      power = power,
      scale = 10 ^ power,
      weight = ceil(window / 10 ^ power),
      cost = shape[from + 6],
      another = math.max(1, shape[from + 6]),
      after = floor(shape[from + 7] / AFTER) % 2 == 1,
    }
  end
  shape.by_key, shape.policies = by_key, policies
end

-- What a bucket whose weights are scaled is paid back in a span. Others are spared the call: they are nearly all.
local function paid_scaled(span, policy)
  return floor(span * policy.quota / policy.scale * JUST_BELOW)
end

-- When a bucket's deficit has come down to what is spare.
local function falls_to(deficit, spare, policy)
  if deficit <= spare then return now end
  local quota = policy.quota
  if policy.power == 0 then
    local time = now + ceil((deficit - spare) / quota)
    while deficit - (time - now) * quota > spare do time = time + 1 end
    while deficit - (time - 1 - now) * quota <= spare do time = time - 1 end
    return time
  end
  local time = now + ceil((deficit - spare) * policy.scale / quota * JUST_ABOVE)
  while deficit - paid_scaled(time - now, policy) > spare do time = time + 1 end
  while deficit - paid_scaled(time - 1 - now, policy) <= spare do time = time - 1 end
  return time
end

-- Charges a policy whose record is in `value` from `from` to `till`; at 0 it has none. Tells what is left of it at `told` and behind. Its
-- record, nil where there is none to write, and in which second it expires; false where it is not plain.
local function charge(policy, value, from, till, told)
  local kind, quota, window, cost = policy.kind, policy.quota, policy.window, policy.cost
  if kind == 1 then
    local weight = policy.weight
    local deficit, room = 0, policy.capacity * weight
    if from > 0 then
      local at, earlier, power
      deficit, at, earlier, power = unpack_bytes('<dddB', value, from + 11)
      if earlier ~= quota or power ~= policy.power or at > now then return false end
      deficit = deficit - (power == 0 and (now - at) * quota or paid_scaled(now - at, policy))
      if deficit < 0 then deficit = 0 end
    end
    deficit = deficit + cost * weight
    if deficit > room then return false end
    local full = falls_to(deficit, 0, policy)
    local spare, wait = room - policy.another * weight, 0
    if spare < 0 then
      wait = -1
    elseif deficit > spare then
      wait = falls_to(deficit, spare, policy) - now
    end
    answer[told], answer[told + 1], answer[told + 2] = floor((room - deficit) / weight), wait, full - now
    local second = ceil(full / 1000000)
    return pack_bytes('<I4I5I2dddB', policy.id, second, 25, deficit, now, quota, policy.power), second
  elseif kind == 2 or kind == 7 then
    local sum, first, last = 0, now, now
    if from > 0 then
      sum, first = unpack_bytes('<I6I7', value, from + 11)
      last = unpack_bytes('<I7', value, till - 11)
      if first + window <= now or last > now then return false end
    end
    if policy.after then
      if sum + 1 > quota then return false end
      answer[told], answer[told + 1], answer[told + 2] = quota - sum, 0, from > 0 and last + window - now or 0
      if from == 0 then return nil, 0 end
      return bytes_of(value, from, till), ceil((last + window) / 1000000)
    end
    sum = sum + cost
    -- What comes next has to fit too, or its wait asks for more than the sum.
    if sum + cost > quota then return false end
    answer[told], answer[told + 1], answer[told + 2] = quota - sum, 0, window
    local second = ceil((now + window) / 1000000)
    if from == 0 then return pack_bytes('<I4I5I2I6I7I5', policy.id, second, 18, sum, now, cost), second end
    local count = cost
    local is_full = till - from == 208
    if last == now or is_full then
      local cell = ceil(window / 14)
      if last ~= now and floor(last / cell) ~= floor(now / cell) then return false end
      count = count + unpack_bytes('<I5', value, till - 4)
      till = till - 12
    end
    local head = pack_bytes('<I4I5I2I6', policy.id, second, till - from + 2, sum)
    return head .. bytes_of(value, from + 17, till) .. pack_bytes('<I7I5', now, count), second
  end
  local start, used = now, 0
  if from > 0 then
    local began, count = unpack_bytes('<dd', value, from + 11)
    if began > now then return false end
    if began + (kind == 5 and policy.capacity or window) > now then
      start, used = began, count
    else
      from = 0
    end
  end
  if kind == 4 then
    if used == 0 then start = now end
    used = used + cost
    if used > quota then return false end
    local closes, wait = start + window, 0
    if policy.another > quota then
      wait = -1
    elseif used + policy.another > quota then
      wait = closes - now
    end
    answer[told], answer[told + 1], answer[told + 2] = quota - used, wait, closes - now
    local second = ceil(closes / 1000000)
    return pack_bytes('<I4I5I2dd', policy.id, second, 16, start, used), second
  end
  local renewal, runs = start + policy.capacity, now < start + window
  local wait = renewal - now
  if policy.another > quota then
    wait = -1
  elseif runs and used + policy.another <= quota then
    wait = 0
  end
  answer[told], answer[told + 1], answer[told + 2] = runs and math.max(0, quota - used) or -1, wait, renewal - now
  local second = ceil(renewal / 1000000)
  if from > 0 then return bytes_of(value, from, till), second end
  return pack_bytes('<I4I5I2dd', policy.id, second, 16, start, used), second
end

-- What was read or written of keys, which saves reading them again; false of those that hold nothing, nil of those unread.
local held = {}

-- Where the records of a decision's policies begin and end, what a key is to hold, and parts of it.
local begins, ends, writes, seconds, parts = {}, {}, {}, {}, {}

-- True when it decided; false, having changed nothing, where `decide` has to. The answer goes behind so many numbers of it.
local function decide_plainly(shape, base, size)
  local policies = shape.policies
  answer[size + 1] = 2
  for place = 1, shape[1] do
    local key, of_key = KEYS[base + place], shape.by_key[place]
    -- Of nothing, and of what is no string, `MGET` says the same: the one is asked for again, the other is an error.
    local value = held[key]
    if value == nil then
      value = redis.call('GET', key)
      held[key] = value
    end
    local ids, indices = of_key.ids, of_key.indices
    local count, latest, changes = 0, 0, false
    for at = 1, #indices do begins[indices[at]], ends[indices[at]] = 0, 0 end
    if value then
      local from, till = 1, #value
      while from < till do
        local id, expires, length = unpack_bytes('<I4I5I2', value, from)
        local index, next_one = ids[id], from + 11 + length
        if expires * 1000000 > now then
          if index == 0 then return false end
          if index then
            begins[index], ends[index] = from, next_one - 1
          else
            count = count + 1
            parts[count] = bytes_of(value, from, next_one - 1)
            if expires > latest then latest = expires end
          end
        end
        from = next_one
      end
    end
    for at = 1, #indices do
      local index = indices[at]
      local policy = policies[index]
      local bytes, second = charge(policy, value, begins[index], ends[index], size + 3 * index - 1)
      if bytes == false then return false end
      if bytes then
        if second > latest then latest = second end
        count = count + 1
        parts[count] = bytes
        if not policy.after then changes = true end
      end
    end
    writes[place] = changes and (count == 1 and parts[1] or table.concat(parts, '', 1, count))
    seconds[place] = latest
  end
  for place = 1, shape[1] do
    local value = writes[place]
    if value then
      local key = KEYS[base + place]
      redis.call('SET', key, value, 'PX', ceil((seconds[place] * 1000000 - now) / 1000))
      held[key] = value
    end
  end
  return true
end
