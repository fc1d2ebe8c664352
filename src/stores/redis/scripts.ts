// Generated from lua/ by scripts/embed-lua.mjs (npm run embed). Do not edit.

/** lua/board.lua. Calls TIME, HGETALL, HSET, HDEL, PEXPIRE. */
export const boardScript: string = `local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local entry, value, ttl, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('HGETALL', KEYS[1])
local values, gone, last = {}, {}, 0
for index = 1, #stored, 2 do
local until_us, posted = string.match(stored[index + 1], '^(%d+) (%-?%d+)$')
until_us = tonumber(until_us)
if stored[index] == entry or not until_us or until_us <= now or until_us > now + 86400000000 then
gone[#gone + 1] = stored[index]
else
values[#values + 1] = tonumber(posted)
last = math.max(last, until_us)
end
end
for index = 1, #gone, 10 do
redis.call('HDEL', KEYS[1], unpack(gone, index, math.min(index + 9, #gone)))
end
if ttl > 0 and #values < most then
local until_us = now + ttl * 1000
redis.call('HSET', KEYS[1], entry, string.format('%.0f', until_us) .. ' ' .. value)
values[#values + 1] = tonumber(value)
last = math.max(last, until_us)
end
if #values > 0 then
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((last - now) / 1000)))
end
return values`

/** lua/decide.lua. Calls TIME, GET, MGET, SET, EXISTS, HMGET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE, ZADD, ZREM, ZCOUNT, ZMSCORE, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE, HSET, XADD, XLEN, XRANGE, XREVRANGE, XTRIM. */
export const decideScript: string = `local SCHEDULE_ID = 1548668958
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local shapes = cjson.decode(ARGV[1])
local answer = { now }
local unpack_bytes, pack_bytes, bytes_of = struct.unpack, struct.pack, string.sub
local floor, ceil = math.floor, math.ceil
local HEAD, PER_POLICY = 4, 8
local STANDING, AFTER = 11, 4
local LARGEST_WEIGHT = 562949953421312
local JUST_BELOW, JUST_ABOVE = 1 - 2 ^ -51, 1 + 2 ^ -51
local function power_of(quota, capacity, window)
local power, weight = 0, math.max(capacity, quota) * window
while weight / 10 ^ power > LARGEST_WEIGHT do power = power + 1 end
return power
end
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
local function paid_scaled(span, policy)
return floor(span * policy.quota / policy.scale * JUST_BELOW)
end
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
local held = {}
local begins, ends, writes, seconds, parts = {}, {}, {}, {}, {}
local function decide_plainly(shape, base, size)
local policies = shape.policies
answer[size + 1] = 2
for place = 1, shape[1] do
local key, of_key = KEYS[base + place], shape.by_key[place]
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
local function make_decide()
local function load_partition(key, value, apart)
if value == nil and not apart then value = redis.call('GET', key) end
local partition = { key = key, order = {}, records = {}, stored = value }
if value then
local from, size = 1, #value
while from + 10 <= size do
local id, expires, length = struct.unpack('<I4I5I2', value, from)
partition.order[#partition.order + 1] = id
partition.records[id] = { expires = expires * 1000000, bytes = string.sub(value, from + 11, from + 10 + length) }
from = from + 11 + length
end
end
return partition
end
local function save_partition(partition, now)
local parts, expires = {}, 0
for _, id in ipairs(partition.order) do
local record = partition.records[id]
if record.changed then
record.bytes, record.expires = record.algorithm.pack(record.state, record.limit, now)
end
if record.expires > now then
local second = math.ceil(record.expires / 1000000)
expires = math.max(expires, second * 1000000)
parts[#parts + 1] = struct.pack('<I4I5I2', id, second, #record.bytes) .. record.bytes
end
end
if #parts > 0 then
redis.call('SET', partition.key, table.concat(parts), 'PX', string.format('%.0f', math.ceil((expires - now) / 1000)))
elseif partition.stored then
redis.call('UNLINK', partition.key)
end
end
local define = {}
local defined = {}
local function algorithm_of(kind)
local algorithm = defined[kind]
if not algorithm then
algorithm = define[kind]()
defined[kind] = algorithm
end
return algorithm
end
local function keep(partition, record)
record.changed = true
partition.dirty = true
end
local function open_record(partition, entry, now)
local record = partition.records[entry.id]
if not record then
record = { expires = 0 }
partition.records[entry.id] = record
partition.order[#partition.order + 1] = entry.id
end
record.algorithm = algorithm_of(entry.kind)
record.limit = entry
record.state = record.algorithm.open(record.state or record.bytes, entry, now)
if record.state.mended then keep(partition, record) end
return record
end
local function read_entry(plan, from, base, commit, correcting)
local extra = plan[from + 8]
local own_key = KEYS[base + plan[from + 1]]
return {
commit = commit,
correcting = correcting,
apart = plan[from] == 0,
key = plan[from] == 0 and own_key or KEYS[base + plan[from]],
own_key = own_key,
kind = plan[from + 2],
id = plan[from + 3],
window = plan[from + 4],
quota = plan[from + 5],
capacity = plan[from + 6],
cost = plan[from + 7],
extra = extra ~= 0 and extra or nil,
at = plan[from + 9],
added = plan[from + 10],
does = plan[from + 11],
}
end
define[1] = function()
local largest_weight, most = 562949953421312, 9007199254740991
local just_below, just_above = 1 - 2 ^ -51, 1 + 2 ^ -51
local longest = 366 * 24 * 3600000000
local function scale_of(limit)
local scale = 1
while math.max(limit.capacity, limit.quota) * limit.window / scale > largest_weight do scale = scale * 10 end
return scale
end
local function weight_of(limit, scale)
return math.ceil(limit.window / scale)
end
local function deficit_at(state, quota, time)
local paid = math.max(0, time - state.at) * quota
if state.scale ~= 1 then paid = math.floor(paid / state.scale * just_below) end
return math.max(0, state.deficit - paid)
end
local function reaches(state, spare)
if state.deficit <= spare then return state.at end
local rounding = 1
if state.scale ~= 1 then rounding = just_above end
local time = state.at + math.ceil((state.deficit - spare) * state.scale / state.quota * rounding)
if not (time <= most) then return math.huge end
while deficit_at(state, state.quota, time) > spare do time = time + 1 end
while deficit_at(state, state.quota, time - 1) <= spare do time = time - 1 end
return time
end
local function is_full(state, now)
return deficit_at(state, state.quota, now) == 0 or (state.quota == 0 and state.at + longest <= now)
end
local function rescale(state, limit, scale)
local before, after = weight_of(limit, state.scale), weight_of(limit, scale)
local units = math.floor(state.deficit / before)
local rest = state.deficit - units * before
state.deficit = units * after + math.ceil(rest * after / before * just_above)
state.scale = scale
end
local function expires(state)
if state.quota == 0 and state.deficit > 0 then return state.at + longest end
return math.min(most, reaches(state, 0))
end
return {
open = function(stored, limit, now)
if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale_of(limit) } end
local state = stored
if type(stored) == 'string' then
local deficit, at, quota, power = struct.unpack('<dddB', stored)
state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
end
if state.at > now + limit.window then
state.at = now
state.mended = true
end
local quota, scale = state.quota, state.scale
if not limit.correcting then quota, scale = limit.quota, scale_of(limit) end
if is_full(state, now) then
return { deficit = 0, at = math.max(state.at, now), quota = quota, scale = scale, mended = state.mended }
end
if state.quota ~= quota then
state.deficit = deficit_at(state, math.min(state.quota, quota), now)
state.at = math.max(state.at, now)
state.quota = quota
state.mended = true
end
if state.scale < scale then
rescale(state, limit, scale)
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
local spare = (limit.capacity - cost) * weight_of(limit, state.scale)
if deficit_at(state, state.quota, now) <= spare then return now end
return reaches(state, spare)
end,
remaining = function(state, limit, now)
local weight = weight_of(limit, state.scale)
return math.max(0, math.floor((limit.capacity * weight - deficit_at(state, state.quota, now)) / weight))
end,
charge = function(state, limit, now, cost)
local weight = cost * weight_of(limit, state.scale)
state.deficit = math.min(most, deficit_at(state, state.quota, now) + weight)
state.at = math.max(state.at, now)
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
local weight = cost * weight_of(limit, state.scale)
state.deficit = math.max(0, deficit_at(state, state.quota, now) - weight)
state.at = math.max(state.at, now)
end,
room = function(state, limit)
return {
refills = true,
deficit = state.deficit,
at = state.at,
quota = state.quota,
scale = state.scale,
weight = weight_of(limit, state.scale),
capacity = limit.capacity,
}
end,
expires = expires,
pack = function(state)
local power = math.floor(math.log10(state.scale) + 0.5)
return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires(state)
end,
}
end
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
state[#state] = nil
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
define[3] = function()
local chunk, longest_chunk, most_count = 32, 256, 1099511627775
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
local function seen_of(state)
local seen = state.seen
if not seen then
seen = { times = {}, sums = {}, size = 0, first = state.gone }
state.seen = seen
end
local past = state.gone - seen.first
return seen, past, past > 0 and seen.sums[past] or 0
end
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
local young = 0
while true do
local entries = redis.call('LRANGE', state.key, -(young + chunk), -(young + 1))
local index = #entries
while index > 0 and time_in(state, entries[index]) >= charged_at do index = index - 1 end
young = young + #entries - index
if index > 0 or #entries < chunk then break end
end
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
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
return struct.pack('<dI7', state.total, state.newest), ends
end,
}
end
define[4] = function()
local DAY = 86400000000
local function days_to(year, month, day)
if month <= 2 then year = year - 1 end
local in_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
return year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) + in_year - 719468
end
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
define[5] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used, granted = true }
end
if not state or state.start + limit.capacity <= now then return { start = now, used = 0 } end
if state.start > now + limit.capacity then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if cost > limit.quota then return math.huge end
if now < state.start + limit.window and state.used + cost <= limit.quota then return now end
return state.start + limit.capacity
end,
remaining = function(state, limit, now)
if now >= state.start + limit.window then return 0 end
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
state.granted = true
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit, now)
if not state.granted then return now end
return state.start + limit.capacity
end,
pack = function(state, limit, now)
if not state.granted then return '', now end
return struct.pack('<dd', state.start, state.used), state.start + limit.capacity
end,
}
end
define[6] = function()
local unknown_hold, smoothing = 1000000, 8
local function count(state)
if state.absent then return 0 end
return redis.call('ZCOUNT', state.key, state.live, '+inf')
end
local function scores(state, limit, now)
if #limit.extra == 0 then return {} end
local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
for index = 1, #found do
local score = not state.absent and found[index] and tonumber(found[index])
found[index] = score and score > now and score or false
end
return found
end
local function ends_of(state, limit, now)
local found = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES')
local ends = {}
for index = 2, #found, 2 do
local score = tonumber(found[index])
ends[#ends + 1] = score > now + 2 * limit.window and now + limit.window or score
end
table.sort(ends)
return ends
end
local function add(state, limit, now)
local arguments = {}
for _, member in ipairs(limit.extra) do
arguments[#arguments + 1] = string.format('%.0f', now + limit.window)
arguments[#arguments + 1] = member
end
if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
end
local function last_of(state)
if state.absent then return 0 end
local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
return #last > 0 and tonumber(last[2]) or 0
end
local function expires(state, limit, now)
if state.ahead then
local ends = ends_of(state, limit, now)
return ends[#ends]
end
return math.max(now, last_of(state))
end
return {
open = function(stored, limit, now)
local state = stored
if not stored then
state = { held = 0, changed_at = 0 }
elseif type(stored) == 'string' then
local held, changed_at = struct.unpack('<dd', stored)
state = { held = held, changed_at = changed_at }
end
state.key = limit.own_key
state.live = string.format('(%.0f', now)
state.absent = not stored and not limit.commit
if not stored and limit.commit then redis.call('UNLINK', state.key) end
state.ahead = last_of(state) > now + 2 * limit.window
if limit.commit then
if redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now)) > 0 then state.mended = true end
if state.ahead then
local ahead = redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now + 2 * limit.window), '+inf')
for _, member in ipairs(ahead) do
redis.call('ZADD', state.key, string.format('%.0f', now + limit.window), member)
end
state.ahead = false
state.mended = true
end
end
if state.changed_at > 0 and (state.changed_at + limit.window <= now or state.changed_at > now + limit.window) then
state.held, state.changed_at = 0, 0
state.mended = true
end
return state
end,
needs = function(state, limit, now)
local needed = 0
for _, score in ipairs(scores(state, limit, now)) do
if not score then needed = needed + 1 end
end
return needed
end,
earliest = function(state, limit, now, cost)
local held = count(state)
local excess = held + cost - limit.quota
if excess <= 0 then return now end
local expiry = now + 1
if state.ahead then
expiry = ends_of(state, limit, now)[math.min(excess, held)] or expiry
elseif held > 0 then
expiry = tonumber(redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT',
math.min(excess, held) - 1, 1)[2])
end
if limit.added == 1 then return expiry end
local hold = state.held == 0 and unknown_hold or state.held
return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held)), now - state.changed_at))
end,
remaining = function(state, limit)
return math.max(0, limit.quota - count(state))
end,
charge = function(state, limit, now)
local added = 0
for index, score in ipairs(scores(state, limit, now)) do
if not score then added = added + 2 ^ (index - 1) end
end
add(state, limit, now)
state.changed_at = now
return added
end,
refund = function(state, limit, now, charged_at, cost, added)
for index, member in ipairs(limit.extra) do
if math.floor(added / 2 ^ (index - 1)) % 2 == 1 then redis.call('ZREM', state.key, member) end
end
end,
release = function(state, limit, now, charged_at)
if #limit.extra == 0 or redis.call('ZREM', state.key, unpack(limit.extra)) == 0 then return end
local duration = math.max(1, now - charged_at)
if state.held == 0 then
state.held = duration
else
state.held = math.max(1, state.held + math.floor((duration - state.held) / smoothing))
end
state.changed_at = now
end,
renew = add,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
if state.held > 0 then ends = math.max(ends, state.changed_at + limit.window) end
return struct.pack('<dd', state.held, state.changed_at), ends
end,
}
end
define[7] = define[2]
define[8] = function()
local function count(state)
if state.absent then return 0 end
return redis.call('ZCOUNT', state.key, state.live, '+inf')
end
local function touched(state, limit, now)
if #limit.extra == 0 then return {} end
local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
for index = 1, #found do
local score = not state.absent and found[index] and tonumber(found[index])
found[index] = score and score + limit.window > now and score or false
end
return found
end
local function newest(state)
if state.absent then return 0 end
local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
return #last > 0 and tonumber(last[2]) or 0
end
local function expires(state, limit, now)
if state.ahead then return now + limit.window end
return math.max(now, newest(state) + limit.window)
end
return {
open = function(stored, limit, now)
local state = type(stored) == 'table' and stored or {}
state.key = limit.own_key
state.live = string.format('(%.0f', now - limit.window)
state.absent = not stored and not limit.commit
if not stored and limit.commit then redis.call('UNLINK', state.key) end
state.ahead = newest(state) > now + limit.window
if limit.commit then
local gone = redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now - limit.window))
if gone > 0 then state.mended = true end
if state.ahead then
for _, target in ipairs(redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now), '+inf')) do
redis.call('ZADD', state.key, string.format('%.0f', now), target)
end
state.ahead = false
state.mended = true
end
end
return state
end,
needs = function(state, limit, now)
local needed = 0
for _, score in ipairs(touched(state, limit, now)) do
if not score then needed = needed + 1 end
end
return needed
end,
earliest = function(state, limit, now, cost)
local live = count(state)
if live + cost <= limit.quota then return now end
local room = math.max(#limit.extra, cost)
if room > limit.quota then return math.huge end
local ours, known = {}, 0
for index, score in ipairs(touched(state, limit, now)) do
if score then
ours[limit.extra[index]] = true
known = known + 1
end
end
local excess = live - known + room - limit.quota
local oldest = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT', 0, excess + known)
for index = 1, #oldest, 2 do
if not ours[oldest[index]] then
excess = excess - 1
if excess <= 0 then
local at = tonumber(oldest[index + 1])
return (state.ahead and math.min(at, now) or at) + limit.window
end
end
end
return now
end,
remaining = function(state, limit)
return math.max(0, limit.quota - count(state))
end,
charge = function(state, limit, now)
local at = string.format('%.0f', math.max(now, newest(state)))
local added, arguments = 0, {}
for index, score in ipairs(touched(state, limit, now)) do
if not score then added = added + 2 ^ (index - 1) end
arguments[#arguments + 1] = at
arguments[#arguments + 1] = limit.extra[index]
end
if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
return added
end,
refund = function(state, limit, now, charged_at, cost, added)
for index, score in ipairs(touched(state, limit, now)) do
if score == charged_at and math.floor(added / 2 ^ (index - 1)) % 2 == 1 then
redis.call('ZREM', state.key, limit.extra[index])
end
end
end,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
return '.', ends
end,
}
end
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
define[10] = function()
local function is_spent(state, limit)
return state.holder and state.holder ~= limit.extra[2]
end
return {
open = function(stored, limit)
return { holder = redis.call('GET', limit.own_key) }
end,
earliest = function(state, limit, now)
if is_spent(state, limit) then return math.huge end
return now
end,
remaining = function(state, limit)
return is_spent(state, limit) and 0 or 1
end,
charge = function(state, limit)
state.holder = limit.extra[2]
redis.call('SET', limit.own_key, state.holder, 'PX', string.format('%.0f', math.ceil(limit.window / 1000)))
return 0
end,
refund = function(state, limit)
if not is_spent(state, limit) then redis.call('UNLINK', limit.own_key) end
end,
expires = function(state, limit, now)
return now
end,
pack = function()
return '', 0
end,
}
end
local decay_factors = { 46341, 55109, 60097, 62757, 64132, 64830, 65182, 65359 }
local LONGEST_STEP = 2 * 3600000000
local function decayed(value, from, now, half_life)
if value == 0 or from - now > half_life then return 0 end
local tick = math.max(1, math.floor(half_life / 256))
local ticks = math.floor(now / tick) - math.floor(from / tick)
if ticks <= 0 then return value end
local halves = math.floor(ticks / 256)
if halves >= 40 then return 0 end
local rest, bit = ticks - halves * 256, 128
for _, factor in ipairs(decay_factors) do
if rest >= bit then
rest = rest - bit
value = math.floor(value * factor / 65536)
end
bit = bit / 2
end
return math.floor(value / 2 ^ halves)
end
local function step_down(ladder, first, before, score)
local step = before
while step > 0 and score < ladder[first + 2 * step - 1] do step = step - 1 end
return step
end
local function step_on(ladder, first, before, score)
local step = step_down(ladder, first, before, score)
for higher = 4, step + 1, -1 do
if score >= ladder[first + 2 * higher - 2] and higher > step then step = higher end
end
return step
end
local function read_score(bytes)
if not bytes then return nil end
local score, at, offence, signals, next_at = struct.unpack('<I4I7I7I4', bytes)
local steps = {}
while next_at + 8 <= #bytes do
local name, step, lowest
name, step, lowest, next_at = struct.unpack('<I4I1I4', bytes, next_at)
steps[#steps + 1] = { name, step, lowest }
end
return { score = score, steps = steps, at = at, offence = offence, signals = signals }
end
local function name_of(ladder, first)
local name = 0
for index = first, first + 7 do name = (name * 69069 + ladder[index]) % 2 ^ 32 end
return name
end
local function is_over(standing, now) return math.abs(now - standing.offence) > LONGEST_STEP end
local function score_now(standing, ladder, first, half_life, now)
if not standing or half_life == 0 then return 0, 0 end
local score = decayed(standing.score, standing.at, now, half_life)
if is_over(standing, now) then return score, 0 end
local before, name = 0, #standing.steps > 0 and name_of(ladder, first)
for _, known in ipairs(standing.steps) do
if known[1] == name then before = step_down(ladder, first, known[2], known[3]) end
end
return score, step_on(ladder, first, before, score)
end
define[11] = function()
local FIRST_RUNG = 5
local function is_suspended(state, now)
return state.suspended_until == -1 or state.suspended_until > now
end
local function taken(state, limit)
local step = state.step
while step > 0 and math.floor(limit.extra[1] / 2 ^ (step + 1)) % 2 == 1 do step = step - 1 end
return step
end
local function refuses(state, limit)
local enforce, answered = limit.extra[1] % 2 == 1, math.floor(limit.extra[1] / 2) % 2 == 1
local step = taken(state, limit)
return enforce and (step >= 3 or (step == 2 and not answered))
end
return {
open = function(stored, limit, now)
if type(stored) == 'table' then return stored end
local query = limit.extra
local known = redis.call('HMGET', limit.own_key, 's', 't', 'u', 'b', 'a:' .. string.format('%.0f', query[2]))
local standing = read_score(known[4])
local state = {
suspended_until = tonumber(known[1] or 0),
tier = tonumber(known[2] or 0),
unapproved = query[2] ~= 0 and not known[5],
signals = standing and standing.signals or 0,
}
local tier_until = tonumber(known[3] or 0)
if tier_until ~= 0 and tier_until <= now then state.tier = 0 end
state.score, state.step = score_now(standing, query, FIRST_RUNG, query[3], now)
return state
end,
share_left = function(state, limit)
if limit.extra[1] % 2 == 1 and taken(state, limit) >= 1 then return limit.extra[4] end
return 1000
end,
earliest = function(state, limit, now)
if is_suspended(state, now) or state.unapproved or refuses(state, limit) then return math.huge end
return now
end,
remaining = function(state)
local signals = state.score == 0 and 0 or state.signals
return (state.score * 2 ^ 20 + signals) * 8 + state.step
end,
expires = function(state, limit, now)
local suspended, told = is_suspended(state, now), state.tier
if suspended then told = math.max(0, math.ceil((state.suspended_until - now) / 1000)) end
return now + told * 4 + (suspended and 1 or 0) + (state.unapproved and 2 or 0)
end,
pack = function()
return '', 0
end,
}
end
local function throttle(entry, share)
if entry.kind > 4 or entry.role ~= 0 then return end
for _, what in ipairs({ 'quota', 'capacity' }) do
local part = math.max(1, entry.cost, math.floor(entry[what] * share / 1000))
entry[what] = math.min(entry[what], part)
end
end
local function make_ledger()
local CHARGED, HELD, CAPTURED, RELEASED, EXPIRED, VOID = 1, 2, 3, 4, 5, 6
local TOTALS = { 'available', 'held', 'granted', 'spent', 'refunded' }
local KEPT = 30 * 24 * 3600 * 1000
local PURCHASE_KEPT = 730 * 24 * 3600 * 1000
local VOID_KEPT = 600000
local MOST = 9007199254740991
local MOST_SWEPT, TRIMMED = 1000, 100
local ledger = {}
local function whole(number)
return string.format('%.0f', number)
end
local function effect(kind, available, held)
local net = available + held
if kind == 'grant' or kind == 'revoke' then return available, held, net, 0, 0 end
if kind == 'charge' or kind == 'capture' then return available, held, 0, -net, 0 end
if kind == 'refund' then return available, held, 0, 0, net end
return available, held, 0, 0, 0
end
local function read(key)
local sums = redis.call('HMGET', key, 'available', 'held', 'granted', 'spent', 'refunded')
local known = sums[1] ~= false
for index = 1, 5 do sums[index] = tonumber(sums[index] or 0) end
return sums, known
end
local function write(key, sums)
local row = {}
for index = 1, 5 do
row[index * 2 - 1] = TOTALS[index]
row[index * 2] = whole(sums[index])
end
redis.call('HSET', key, unpack(row))
end
local function add(sums, kind, available, held)
local effects = { effect(kind, available, held) }
for index = 1, 5 do sums[index] = sums[index] + effects[index] end
end
local function add_entries(sums, entries)
for _, entry in ipairs(entries) do
local fields = entry[2]
add(sums, fields[2], tonumber(fields[4]), tonumber(fields[6]))
end
end
local function trim(account)
local stream, checkpoint = account.key .. ':s', account.key .. ':k'
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', TRIMMED)
local sums = read(checkpoint)
add_entries(sums, oldest)
write(checkpoint, sums)
redis.call('HSET', checkpoint, 'id', oldest[#oldest][1])
redis.call('XTRIM', stream, 'MAXLEN', '=', whole(account.length - #oldest))
end
local function move(account, kind, available, held, ref)
add(account.sums, kind, available, held)
account.known = true
local stream = account.key .. ':s'
account.id = redis.call('XADD', stream, '*', 't', kind, 'a', whole(available), 'h', whole(held), 'r', ref)
write(account.key, account.sums)
account.length = redis.call('XLEN', stream)
if account.length >= account.history + TRIMMED then trim(account) end
end
local function charge_key(account, id)
return account.key .. ':c:' .. id
end
local function find(account, id)
local stored = redis.call('GET', charge_key(account, id))
if not stored then return nil end
local charge = { id = id }
local state, amount, spent, refunded = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
charge.state, charge.amount, charge.spent, charge.refunded =
tonumber(state), tonumber(amount), tonumber(spent), tonumber(refunded)
return charge
end
local function keep_charge(account, charge, ms)
local value = string.format('%d %.0f %.0f %.0f', charge.state, charge.amount, charge.spent, charge.refunded)
redis.call('SET', charge_key(account, charge.id), value, 'PX', whole(ms or KEPT))
end
local function hold_name(charge)
return charge.id .. ' ' .. whole(charge.amount)
end
local function sweep(account, now)
local holds = account.key .. ':h'
local ended = redis.call('ZRANGEBYSCORE', holds, '-inf', whole(now), 'LIMIT', 0, MOST_SWEPT)
for _, name in ipairs(ended) do
local id, amount = string.match(name, '^(%S+) (%d+)$')
amount = tonumber(amount)
redis.call('ZREM', holds, name)
keep_charge(account, { id = id, state = EXPIRED, amount = amount, spent = 0, refunded = 0 })
move(account, 'expire', amount, -amount, id)
end
end
function ledger.open(key, now, history, looking)
local sums, known = read(key)
local account = { key = key, sums = sums, known = known, history = history }
if not looking and account.sums[2] > 0 then sweep(account, now) end
return account
end
function ledger.has(account, id, amount)
return account.sums[1] >= amount and redis.call('EXISTS', charge_key(account, id)) == 0
end
function ledger.charge(account, id, amount, held_for, now)
local charge = { id = id, amount = amount, spent = 0, refunded = 0 }
if held_for > 0 then
charge.state = HELD
keep_charge(account, charge, math.ceil(held_for / 1000) + KEPT)
redis.call('ZADD', account.key .. ':h', whole(now + held_for), hold_name(charge))
move(account, 'hold', -amount, amount, id)
else
charge.state, charge.spent = CHARGED, amount
keep_charge(account, charge)
move(account, 'charge', -amount, 0, id)
end
end
local function end_hold(account, charge, spent, state)
redis.call('ZREM', account.key .. ':h', hold_name(charge))
charge.spent = spent
charge.state = state
keep_charge(account, charge)
move(account, (spent > 0 or state == CAPTURED) and 'capture' or 'release', charge.amount - spent, -charge.amount, charge.id)
end
local function refund(account, charge, amount)
charge.refunded = charge.refunded + amount
keep_charge(account, charge)
move(account, 'refund', amount, 0, charge.id)
end
local UNKNOWN, SHORT, ABOVE, WAS_CAPTURED, WAS_RELEASED, HAS_EXPIRED, NO_HOLD, OTHER_AMOUNT, FULL, NOT_SPENT, NO_ACCOUNT =
1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local not_held = {
[CHARGED] = NO_HOLD,
[CAPTURED] = WAS_CAPTURED,
[RELEASED] = WAS_RELEASED,
[EXPIRED] = HAS_EXPIRED,
[VOID] = WAS_RELEASED,
}
function ledger.capture(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state ~= HELD then return not_held[charge.state] end
if amount > charge.amount then return ABOVE end
end_hold(account, charge, amount < 0 and charge.amount or amount, CAPTURED)
return 0
end
function ledger.release(account, id)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED or charge.state == CAPTURED then
return not_held[charge.state]
end
return 0
end
function ledger.refund(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
local left = charge.spent - charge.refunded
if charge.state ~= CHARGED and charge.state ~= CAPTURED then return NOT_SPENT end
if amount < 0 then amount = left end
if amount > left then return ABOVE end
if amount > 0 then refund(account, charge, amount) end
return 0
end
function ledger.settle(account, id, total)
local charge = find(account, id)
if not charge then return UNKNOWN, 0 end
if charge.state == RELEASED or charge.state == EXPIRED or charge.state == VOID then return not_held[charge.state], 0 end
if charge.state == HELD then end_hold(account, charge, math.min(total, charge.amount), CHARGED) end
local by = total - (charge.spent - charge.refunded)
if by < 0 then
refund(account, charge, -by)
elseif by > 0 then
by = math.max(0, math.min(by, account.sums[1]))
if by > 0 then
charge.spent = charge.spent + by
keep_charge(account, charge)
move(account, 'charge', -by, 0, id)
end
end
return 0, charge.spent - charge.refunded
end
function ledger.cancel(account, id)
local charge = find(account, id)
if not charge then
keep_charge(account, { id = id, state = VOID, amount = 0, spent = 0, refunded = 0 }, VOID_KEPT)
elseif charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED then
charge.state = VOID
local left = charge.spent - charge.refunded
if left > 0 then refund(account, charge, left) else keep_charge(account, charge) end
end
return 0
end
function ledger.done(account, name, amount)
if name == '' then return nil end
local stored = redis.call('GET', account.key .. ':i:' .. name)
if not stored then return nil end
local of, id = string.match(stored, '^(-?%d+) (.+)$')
account.id = id
return tonumber(of) == amount and 0 or OTHER_AMOUNT
end
function ledger.note_done(account, name, amount)
if name == '' or not account.id then return end
redis.call('SET', account.key .. ':i:' .. name, whole(amount) .. ' ' .. account.id, 'PX', whole(KEPT))
end
function ledger.grant(account, amount, ref)
if amount < 0 and not account.known then return NO_ACCOUNT end
if account.sums[3] + amount > MOST or account.sums[1] + account.sums[2] + amount > MOST then return FULL end
move(account, amount < 0 and 'revoke' or 'grant', amount, 0, ref)
return 0
end
local function purchase_key(account, name)
return account.key .. ':p:' .. name
end
local MOST_SO_FAR, ONCE, RETURNED = 1, 2, 3
local function ask_early(key, early, by, how, part, price, ref)
local shares = early and cjson.decode(early) or {}
local own
for _, share in ipairs(shares) do
if share[1] == by then own = share end
end
if how == RETURNED then part, price = 0, 1 end
if not own then
shares[#shares + 1] = { by, part, price, ref }
elseif how == RETURNED or (how == MOST_SO_FAR and part * own[3] > own[2] * price) then
own[2], own[3] = part, price
end
redis.call('HSET', key, 'early', cjson.encode(shares))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
end
function ledger.take_back(account, name, by, how, part, price, ref, early)
local key, field = purchase_key(account, name), 'by:' .. by
local row = redis.call('HMGET', key, 'credits', 'taken', field, 'early')
if not row[1] then
if early then ask_early(key, row[4], by, how, part, price, ref) end
return UNKNOWN, 0, 0
end
local credits, taken, before = tonumber(row[1]), tonumber(row[2] or 0), tonumber(row[3] or 0)
local amount = math.max(0, math.min(credits, math.floor(credits * part / price)))
if how == MOST_SO_FAR then
amount = math.max(before, amount)
elseif how == RETURNED then
amount = 0
elseif row[3] then
amount = before
end
local more = taken - before + amount
local moved = math.min(credits, more) - math.min(credits, taken)
local code = moved == 0 and 0 or ledger.grant(account, -moved, ref)
if code ~= 0 then return code, 0, 0 end
redis.call('HSET', key, 'taken', whole(more), field, whole(amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
return 0, moved, row[3] and 0 or 1
end
function ledger.buy(account, amount, name, ref)
local code = ledger.grant(account, amount, ref)
if code ~= 0 or name == '' then return code end
local key, id = purchase_key(account, name), account.id
local before = redis.call('HMGET', key, 'credits', 'early')
redis.call('HSET', key, 'credits', whole((tonumber(before[1]) or 0) + amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
if not before[1] and before[2] then
for _, share in ipairs(cjson.decode(before[2])) do
ledger.take_back(account, name, share[1], ONCE, share[2], share[3], share[4])
end
account.id = id
end
return code
end
function ledger.hold(account, id, amount, held_for, now)
local before = find(account, id)
if before then return before.amount == amount and 0 or OTHER_AMOUNT end
if account.sums[1] < amount then return SHORT end
ledger.charge(account, id, amount, held_for, now)
return 0
end
local function came_before(one, other)
local ms, nth = string.match(one, '^(%d+)-(%d+)$')
local other_ms, other_nth = string.match(other, '^(%d+)-(%d+)$')
if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
return tonumber(nth) < tonumber(other_nth)
end
function ledger.history(account, since, limit, after, backwards)
local answer = {}
local function tell(id, kind, available, held, ref)
local size = #answer
answer[size + 1], answer[size + 2], answer[size + 3], answer[size + 4], answer[size + 5] = id, kind, available, held, ref
end
local trimmed = redis.call('HMGET', account.key .. ':k', 'id', 'available', 'held')
local is_told = trimmed[1] and tonumber(string.match(trimmed[1], '^%d+')) >= since
if is_told and after ~= '' then
if backwards then is_told = came_before(trimmed[1], after) else is_told = came_before(after, trimmed[1]) end
end
if is_told and not backwards then
tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '')
limit = limit - 1
end
if limit < 1 then return answer end
local stream, entries = account.key .. ':s', nil
local from, till = whole(since), '+'
if backwards then
if after ~= '' then till = '(' .. after end
entries = redis.call('XREVRANGE', stream, till, from, 'COUNT', whole(limit))
else
if after ~= '' and tonumber(string.match(after, '^%d+')) >= since then from = '(' .. after end
entries = redis.call('XRANGE', stream, from, till, 'COUNT', whole(limit))
end
for _, entry in ipairs(entries) do
local fields = entry[2]
tell(entry[1], fields[2], fields[4], fields[6], fields[8])
end
if is_told and backwards and #entries < limit then tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '') end
return answer
end
function ledger.sum_up(account, rebuild)
local sums = read(account.key .. ':k')
add_entries(sums, redis.call('XRANGE', account.key .. ':s', '-', '+'))
if rebuild then
account.sums = sums
write(account.key, sums)
end
return sums
end
return ledger
end
local made_ledger
local function the_ledger()
made_ledger = made_ledger or make_ledger()
return made_ledger
end
define[12] = function()
local ledger = the_ledger()
return {
open = function(stored, limit, now)
if type(stored) == 'table' then return stored end
return { account = ledger.open(limit.own_key, now, tonumber(limit.extra[3]), not limit.commit) }
end,
earliest = function(state, limit, now, cost)
if state.charged or ledger.has(state.account, limit.extra[1], cost) then return now end
return math.huge
end,
remaining = function(state)
return state.account.sums[1]
end,
charge = function(state, limit, now, cost)
state.charged = true
ledger.charge(state.account, limit.extra[1], cost, tonumber(limit.extra[2]), now)
return 0
end,
refund = function(state, limit)
ledger.cancel(state.account, limit.extra[1])
end,
expires = function(state, limit, now)
return now + state.account.sums[2]
end,
pack = function()
return '', 0
end,
}
end
local function schedule_record(partition, entry)
return partition.records[(entry.id + SCHEDULE_ID) % 4294967296]
end
local schedules
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
taken = function(entry, now)
take_due(open_schedule(entry, now), now, entry.cost)
keep_schedule(entry)
end,
}
end
local RESERVATIONS_ID = 1908729693
local reservations
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
local FIRST_MINUTES, CREDITS = 5, 12
local LIFTABLE, SHADOW = 1, 2
local OWN, COMMON, DEMAND = 8, 16, 24
local REFUSED, FITS, LIFTED, INACTIVE, SPARED = 0, 1, 2, 3, 4
local SHOWN = { none = 0, redeemed = 1, early = 2, kept = 3, lapsed = 4, used = 5 }
local function finite(wait)
if wait == math.huge then return -1 end
return wait
end
local function wait_for(record, limit, now, cost)
local algorithm = record.algorithm
if algorithm.needs then cost = algorithm.needs(record.state, limit, now) end
if cost == 0 then return 0 end
if cost > limit.capacity and limit.kind ~= FIRST_MINUTES then return -1 end
return finite(algorithm.earliest(record.state, limit, now, cost) - now)
end
local function wait_for_another(record, limit, now)
local algorithm, cost = record.algorithm, limit.after and 1 or math.max(limit.cost, 1)
if algorithm.needs then
cost = 1
limit.extra = {}
end
if cost > limit.capacity and limit.kind ~= FIRST_MINUTES then return -1 end
return finite(algorithm.earliest(record.state, limit, now, cost) - now)
end
local function longer(one, other)
if one < 0 or other < 0 then return -1 end
return math.max(one, other)
end
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
local standing, share = nil, 1000
if charges > 0 and plan[from + 12 * charges - 10] == STANDING then
standing = read_entry(plan, from + 12 * (charges - 1), base, commit)
share = algorithm_of(STANDING).share_left(open(standing).state, standing)
end
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
local fits = not promising and not early and not hard and (not soft or lifts)
local admitted = fits and not unpaid
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
local function plan_of(shape, argument)
local holders = {}
for holder in string.gmatch(argument or '', ',(%d+)') do holders[#holders + 1] = tonumber(holder) end
local keys = shape[1] + (shape[4] ~= 0 and 1 or 0)
local plan = { 1, keys, 0, shape[2], shape[3], 0 }
for index = 1, shape[2] do
local from = HEAD + 1 + (index - 1) * PER_POLICY
for offset = 0, 11 do plan[7 + (index - 1) * 12 + offset] = 0 end
local to = 7 + (index - 1) * 12
plan[to] = shape[from]
for offset = 1, 6 do plan[to + 1 + offset] = shape[from + offset] end
plan[to + 9] = holders[index] or 0
plan[to + 11] = shape[from + 7]
end
if shape[4] ~= 0 then
local key, id, query = unpack(shape[4])
plan[4] = plan[4] + 1
for _, number in ipairs({ key, keys, STANDING, id, 1, 1, 1, 0, query, 0, 0, AFTER }) do
plan[#plan + 1] = number
end
end
local bases = HEAD + 1 + shape[2] * PER_POLICY
if shape[bases] then
local to = #plan + 1
plan[to] = -1
for index = 0, plan[4] * 2 - 1 do plan[to + 1 + index] = shape[bases + index] end
end
return plan
end
return decide, plan_of
end
local shaped, holders, plans, bases = {}, {}, {}, { 0 }
local partitions, standings = {}, {}
local count, base = 0, 0
for index = 2, #ARGV do
local argument = ARGV[index]
local first, times = string.match(argument, '^(%d+)%*?(%d*)')
if first then
local shape = shapes[tonumber(first)]
for _ = 1, tonumber(times) or 1 do
count = count + 1
shaped[count] = shape
for place = base + 1, base + shape[1] do partitions[#partitions + 1] = KEYS[place] end
base = base + shape[1]
if shape[4] ~= 0 then
base = base + 1
standings[#standings + 1] = KEYS[base]
end
bases[count + 1] = base
end
if times == '' then holders[count] = argument end
else
count = count + 1
plans[count] = cjson.decode(argument)
base = base + plans[count][2]
bases[count + 1] = base
end
end
local nobody_stands = #standings > 1 and redis.call('EXISTS', unpack(standings)) == 0
if #partitions > 1 then
for index, value in ipairs(redis.call('MGET', unpack(partitions))) do held[partitions[index]] = value or nil end
end
local decide, plan_of
local function clear(from, shape)
for place = from, math.max(#answer, from + 3 * (shape and shape[2] or 0)) do answer[place] = nil end
end
local function decide_one(index, size)
local shape = shaped[index]
if shape then
local stands = shape[4] ~= 0 and not nobody_stands and redis.call('EXISTS', KEYS[bases[index + 1]]) == 1
if not stands and decide_plainly(shape, bases[index], size) then return end
clear(size + 1, shape)
end
if not decide then decide, plan_of = make_decide() end
decide(shape and plan_of(shape, holders[index]) or plans[index], bases[index], now, answer)
held, nobody_stands = {}, false
end
local index, size, failures = 0, 1, {}
local function decide_all()
while index < count do
index, size = index + 1, #answer
decide_one(index, size)
end
end
while index < count do
local decided, failure = pcall(decide_all)
if not decided then
clear(size + 1, shaped[index])
held, nobody_stands = {}, false
answer[size + 1] = -1
failures[#failures + 1] = type(failure) == 'table' and failure.err or tostring(failure)
end
end
local row = pack_bytes('<' .. string.rep('d', #answer), unpack(answer))
return #failures == 0 and row or { row, unpack(failures) }`

/** lua/ledger.lua. Calls TIME, GET, SET, EXISTS, HMGET, HSET, PEXPIRE, XADD, XLEN, XRANGE, XREVRANGE, XTRIM, ZADD, ZREM, ZRANGEBYSCORE. */
export const ledgerScript: string = `local function make_ledger()
local CHARGED, HELD, CAPTURED, RELEASED, EXPIRED, VOID = 1, 2, 3, 4, 5, 6
local TOTALS = { 'available', 'held', 'granted', 'spent', 'refunded' }
local KEPT = 30 * 24 * 3600 * 1000
local PURCHASE_KEPT = 730 * 24 * 3600 * 1000
local VOID_KEPT = 600000
local MOST = 9007199254740991
local MOST_SWEPT, TRIMMED = 1000, 100
local ledger = {}
local function whole(number)
return string.format('%.0f', number)
end
local function effect(kind, available, held)
local net = available + held
if kind == 'grant' or kind == 'revoke' then return available, held, net, 0, 0 end
if kind == 'charge' or kind == 'capture' then return available, held, 0, -net, 0 end
if kind == 'refund' then return available, held, 0, 0, net end
return available, held, 0, 0, 0
end
local function read(key)
local sums = redis.call('HMGET', key, 'available', 'held', 'granted', 'spent', 'refunded')
local known = sums[1] ~= false
for index = 1, 5 do sums[index] = tonumber(sums[index] or 0) end
return sums, known
end
local function write(key, sums)
local row = {}
for index = 1, 5 do
row[index * 2 - 1] = TOTALS[index]
row[index * 2] = whole(sums[index])
end
redis.call('HSET', key, unpack(row))
end
local function add(sums, kind, available, held)
local effects = { effect(kind, available, held) }
for index = 1, 5 do sums[index] = sums[index] + effects[index] end
end
local function add_entries(sums, entries)
for _, entry in ipairs(entries) do
local fields = entry[2]
add(sums, fields[2], tonumber(fields[4]), tonumber(fields[6]))
end
end
local function trim(account)
local stream, checkpoint = account.key .. ':s', account.key .. ':k'
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', TRIMMED)
local sums = read(checkpoint)
add_entries(sums, oldest)
write(checkpoint, sums)
redis.call('HSET', checkpoint, 'id', oldest[#oldest][1])
redis.call('XTRIM', stream, 'MAXLEN', '=', whole(account.length - #oldest))
end
local function move(account, kind, available, held, ref)
add(account.sums, kind, available, held)
account.known = true
local stream = account.key .. ':s'
account.id = redis.call('XADD', stream, '*', 't', kind, 'a', whole(available), 'h', whole(held), 'r', ref)
write(account.key, account.sums)
account.length = redis.call('XLEN', stream)
if account.length >= account.history + TRIMMED then trim(account) end
end
local function charge_key(account, id)
return account.key .. ':c:' .. id
end
local function find(account, id)
local stored = redis.call('GET', charge_key(account, id))
if not stored then return nil end
local charge = { id = id }
local state, amount, spent, refunded = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
charge.state, charge.amount, charge.spent, charge.refunded =
tonumber(state), tonumber(amount), tonumber(spent), tonumber(refunded)
return charge
end
local function keep_charge(account, charge, ms)
local value = string.format('%d %.0f %.0f %.0f', charge.state, charge.amount, charge.spent, charge.refunded)
redis.call('SET', charge_key(account, charge.id), value, 'PX', whole(ms or KEPT))
end
local function hold_name(charge)
return charge.id .. ' ' .. whole(charge.amount)
end
local function sweep(account, now)
local holds = account.key .. ':h'
local ended = redis.call('ZRANGEBYSCORE', holds, '-inf', whole(now), 'LIMIT', 0, MOST_SWEPT)
for _, name in ipairs(ended) do
local id, amount = string.match(name, '^(%S+) (%d+)$')
amount = tonumber(amount)
redis.call('ZREM', holds, name)
keep_charge(account, { id = id, state = EXPIRED, amount = amount, spent = 0, refunded = 0 })
move(account, 'expire', amount, -amount, id)
end
end
function ledger.open(key, now, history, looking)
local sums, known = read(key)
local account = { key = key, sums = sums, known = known, history = history }
if not looking and account.sums[2] > 0 then sweep(account, now) end
return account
end
function ledger.has(account, id, amount)
return account.sums[1] >= amount and redis.call('EXISTS', charge_key(account, id)) == 0
end
function ledger.charge(account, id, amount, held_for, now)
local charge = { id = id, amount = amount, spent = 0, refunded = 0 }
if held_for > 0 then
charge.state = HELD
keep_charge(account, charge, math.ceil(held_for / 1000) + KEPT)
redis.call('ZADD', account.key .. ':h', whole(now + held_for), hold_name(charge))
move(account, 'hold', -amount, amount, id)
else
charge.state, charge.spent = CHARGED, amount
keep_charge(account, charge)
move(account, 'charge', -amount, 0, id)
end
end
local function end_hold(account, charge, spent, state)
redis.call('ZREM', account.key .. ':h', hold_name(charge))
charge.spent = spent
charge.state = state
keep_charge(account, charge)
move(account, (spent > 0 or state == CAPTURED) and 'capture' or 'release', charge.amount - spent, -charge.amount, charge.id)
end
local function refund(account, charge, amount)
charge.refunded = charge.refunded + amount
keep_charge(account, charge)
move(account, 'refund', amount, 0, charge.id)
end
local UNKNOWN, SHORT, ABOVE, WAS_CAPTURED, WAS_RELEASED, HAS_EXPIRED, NO_HOLD, OTHER_AMOUNT, FULL, NOT_SPENT, NO_ACCOUNT =
1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local not_held = {
[CHARGED] = NO_HOLD,
[CAPTURED] = WAS_CAPTURED,
[RELEASED] = WAS_RELEASED,
[EXPIRED] = HAS_EXPIRED,
[VOID] = WAS_RELEASED,
}
function ledger.capture(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state ~= HELD then return not_held[charge.state] end
if amount > charge.amount then return ABOVE end
end_hold(account, charge, amount < 0 and charge.amount or amount, CAPTURED)
return 0
end
function ledger.release(account, id)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED or charge.state == CAPTURED then
return not_held[charge.state]
end
return 0
end
function ledger.refund(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
local left = charge.spent - charge.refunded
if charge.state ~= CHARGED and charge.state ~= CAPTURED then return NOT_SPENT end
if amount < 0 then amount = left end
if amount > left then return ABOVE end
if amount > 0 then refund(account, charge, amount) end
return 0
end
function ledger.settle(account, id, total)
local charge = find(account, id)
if not charge then return UNKNOWN, 0 end
if charge.state == RELEASED or charge.state == EXPIRED or charge.state == VOID then return not_held[charge.state], 0 end
if charge.state == HELD then end_hold(account, charge, math.min(total, charge.amount), CHARGED) end
local by = total - (charge.spent - charge.refunded)
if by < 0 then
refund(account, charge, -by)
elseif by > 0 then
by = math.max(0, math.min(by, account.sums[1]))
if by > 0 then
charge.spent = charge.spent + by
keep_charge(account, charge)
move(account, 'charge', -by, 0, id)
end
end
return 0, charge.spent - charge.refunded
end
function ledger.cancel(account, id)
local charge = find(account, id)
if not charge then
keep_charge(account, { id = id, state = VOID, amount = 0, spent = 0, refunded = 0 }, VOID_KEPT)
elseif charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED then
charge.state = VOID
local left = charge.spent - charge.refunded
if left > 0 then refund(account, charge, left) else keep_charge(account, charge) end
end
return 0
end
function ledger.done(account, name, amount)
if name == '' then return nil end
local stored = redis.call('GET', account.key .. ':i:' .. name)
if not stored then return nil end
local of, id = string.match(stored, '^(-?%d+) (.+)$')
account.id = id
return tonumber(of) == amount and 0 or OTHER_AMOUNT
end
function ledger.note_done(account, name, amount)
if name == '' or not account.id then return end
redis.call('SET', account.key .. ':i:' .. name, whole(amount) .. ' ' .. account.id, 'PX', whole(KEPT))
end
function ledger.grant(account, amount, ref)
if amount < 0 and not account.known then return NO_ACCOUNT end
if account.sums[3] + amount > MOST or account.sums[1] + account.sums[2] + amount > MOST then return FULL end
move(account, amount < 0 and 'revoke' or 'grant', amount, 0, ref)
return 0
end
local function purchase_key(account, name)
return account.key .. ':p:' .. name
end
local MOST_SO_FAR, ONCE, RETURNED = 1, 2, 3
local function ask_early(key, early, by, how, part, price, ref)
local shares = early and cjson.decode(early) or {}
local own
for _, share in ipairs(shares) do
if share[1] == by then own = share end
end
if how == RETURNED then part, price = 0, 1 end
if not own then
shares[#shares + 1] = { by, part, price, ref }
elseif how == RETURNED or (how == MOST_SO_FAR and part * own[3] > own[2] * price) then
own[2], own[3] = part, price
end
redis.call('HSET', key, 'early', cjson.encode(shares))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
end
function ledger.take_back(account, name, by, how, part, price, ref, early)
local key, field = purchase_key(account, name), 'by:' .. by
local row = redis.call('HMGET', key, 'credits', 'taken', field, 'early')
if not row[1] then
if early then ask_early(key, row[4], by, how, part, price, ref) end
return UNKNOWN, 0, 0
end
local credits, taken, before = tonumber(row[1]), tonumber(row[2] or 0), tonumber(row[3] or 0)
local amount = math.max(0, math.min(credits, math.floor(credits * part / price)))
if how == MOST_SO_FAR then
amount = math.max(before, amount)
elseif how == RETURNED then
amount = 0
elseif row[3] then
amount = before
end
local more = taken - before + amount
local moved = math.min(credits, more) - math.min(credits, taken)
local code = moved == 0 and 0 or ledger.grant(account, -moved, ref)
if code ~= 0 then return code, 0, 0 end
redis.call('HSET', key, 'taken', whole(more), field, whole(amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
return 0, moved, row[3] and 0 or 1
end
function ledger.buy(account, amount, name, ref)
local code = ledger.grant(account, amount, ref)
if code ~= 0 or name == '' then return code end
local key, id = purchase_key(account, name), account.id
local before = redis.call('HMGET', key, 'credits', 'early')
redis.call('HSET', key, 'credits', whole((tonumber(before[1]) or 0) + amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
if not before[1] and before[2] then
for _, share in ipairs(cjson.decode(before[2])) do
ledger.take_back(account, name, share[1], ONCE, share[2], share[3], share[4])
end
account.id = id
end
return code
end
function ledger.hold(account, id, amount, held_for, now)
local before = find(account, id)
if before then return before.amount == amount and 0 or OTHER_AMOUNT end
if account.sums[1] < amount then return SHORT end
ledger.charge(account, id, amount, held_for, now)
return 0
end
local function came_before(one, other)
local ms, nth = string.match(one, '^(%d+)-(%d+)$')
local other_ms, other_nth = string.match(other, '^(%d+)-(%d+)$')
if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
return tonumber(nth) < tonumber(other_nth)
end
function ledger.history(account, since, limit, after, backwards)
local answer = {}
local function tell(id, kind, available, held, ref)
local size = #answer
answer[size + 1], answer[size + 2], answer[size + 3], answer[size + 4], answer[size + 5] = id, kind, available, held, ref
end
local trimmed = redis.call('HMGET', account.key .. ':k', 'id', 'available', 'held')
local is_told = trimmed[1] and tonumber(string.match(trimmed[1], '^%d+')) >= since
if is_told and after ~= '' then
if backwards then is_told = came_before(trimmed[1], after) else is_told = came_before(after, trimmed[1]) end
end
if is_told and not backwards then
tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '')
limit = limit - 1
end
if limit < 1 then return answer end
local stream, entries = account.key .. ':s', nil
local from, till = whole(since), '+'
if backwards then
if after ~= '' then till = '(' .. after end
entries = redis.call('XREVRANGE', stream, till, from, 'COUNT', whole(limit))
else
if after ~= '' and tonumber(string.match(after, '^%d+')) >= since then from = '(' .. after end
entries = redis.call('XRANGE', stream, from, till, 'COUNT', whole(limit))
end
for _, entry in ipairs(entries) do
local fields = entry[2]
tell(entry[1], fields[2], fields[4], fields[6], fields[8])
end
if is_told and backwards and #entries < limit then tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '') end
return answer
end
function ledger.sum_up(account, rebuild)
local sums = read(account.key .. ':k')
add_entries(sums, redis.call('XRANGE', account.key .. ':s', '-', '+'))
if rebuild then
account.sums = sums
write(account.key, sums)
end
return sums
end
return ledger
end
local made_ledger
local function the_ledger()
made_ledger = made_ledger or make_ledger()
return made_ledger
end
local BALANCE, GRANT, HOLD, CAPTURE, RELEASE, REFUND, SETTLE, CANCEL, HISTORY, SUM, TAKE_BACK =
1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local what = plan[1]
local ledger = the_ledger()
local account = ledger.open(KEYS[1], now, plan[2])
if what == HISTORY then return ledger.history(account, plan[3], plan[4], plan[5], plan[6] == 1) end
local function once(name, amount, act)
local before = ledger.done(account, name, amount)
if before then return before end
local code = act()
if code == 0 then ledger.note_done(account, name, amount) end
return code
end
local code, more = 0, {}
if what == GRANT then
code = once(plan[4], plan[3], function() return ledger.buy(account, plan[3], plan[5], plan[6]) end)
if code == 0 then
local ms, nth = string.match(account.id, '^(%d+)-(%d+)$')
more = { tonumber(ms), tonumber(nth) }
end
elseif what == HOLD then
code = ledger.hold(account, plan[3], plan[4], plan[5], now)
elseif what == CAPTURE then
code = ledger.capture(account, plan[3], plan[4])
elseif what == RELEASE then
code = ledger.release(account, plan[3])
elseif what == REFUND then
code = once(plan[5], plan[4], function() return ledger.refund(account, plan[3], plan[4]) end)
elseif what == SETTLE then
local comes_to
code, comes_to = ledger.settle(account, plan[3], plan[4])
more = { comes_to }
elseif what == CANCEL then
ledger.cancel(account, plan[3])
elseif what == TAKE_BACK then
local moved, first
code, moved, first = ledger.take_back(account, plan[3], plan[4], plan[5], plan[6], plan[7], plan[8], plan[9] == 1)
more = { moved, first }
elseif what == SUM then
local before = {}
for index = 1, 5 do before[index] = account.sums[index] end
local sums = ledger.sum_up(account, plan[3] == 1)
for index = 1, 5 do
more[index] = before[index]
more[index + 5] = sums[index]
end
elseif what ~= BALANCE then
return redis.error_reply('ERR unknown operation')
end
local answer = { code, account.sums[1], account.sums[2] }
for index = 1, #more do answer[index + 3] = more[index] end
return answer`

/** lua/observe.lua. Calls TIME, HMGET, HSET, HKEYS, PEXPIRE, PTTL, SETBIT, UNLINK, ZADD, ZREM, ZRANGE, ZREMRANGEBYSCORE. */
export const observeScript: string = `local decay_factors = { 46341, 55109, 60097, 62757, 64132, 64830, 65182, 65359 }
local LONGEST_STEP = 2 * 3600000000
local function decayed(value, from, now, half_life)
if value == 0 or from - now > half_life then return 0 end
local tick = math.max(1, math.floor(half_life / 256))
local ticks = math.floor(now / tick) - math.floor(from / tick)
if ticks <= 0 then return value end
local halves = math.floor(ticks / 256)
if halves >= 40 then return 0 end
local rest, bit = ticks - halves * 256, 128
for _, factor in ipairs(decay_factors) do
if rest >= bit then
rest = rest - bit
value = math.floor(value * factor / 65536)
end
bit = bit / 2
end
return math.floor(value / 2 ^ halves)
end
local function step_down(ladder, first, before, score)
local step = before
while step > 0 and score < ladder[first + 2 * step - 1] do step = step - 1 end
return step
end
local function step_on(ladder, first, before, score)
local step = step_down(ladder, first, before, score)
for higher = 4, step + 1, -1 do
if score >= ladder[first + 2 * higher - 2] and higher > step then step = higher end
end
return step
end
local function read_score(bytes)
if not bytes then return nil end
local score, at, offence, signals, next_at = struct.unpack('<I4I7I7I4', bytes)
local steps = {}
while next_at + 8 <= #bytes do
local name, step, lowest
name, step, lowest, next_at = struct.unpack('<I4I1I4', bytes, next_at)
steps[#steps + 1] = { name, step, lowest }
end
return { score = score, steps = steps, at = at, offence = offence, signals = signals }
end
local function name_of(ladder, first)
local name = 0
for index = first, first + 7 do name = (name * 69069 + ladder[index]) % 2 ^ 32 end
return name
end
local function is_over(standing, now) return math.abs(now - standing.offence) > LONGEST_STEP end
local function score_now(standing, ladder, first, half_life, now)
if not standing or half_life == 0 then return 0, 0 end
local score = decayed(standing.score, standing.at, now, half_life)
if is_over(standing, now) then return score, 0 end
local before, name = 0, #standing.steps > 0 and name_of(ladder, first)
for _, known in ipairs(standing.steps) do
if known[1] == name then before = step_down(ladder, first, known[2], known[3]) end
end
return score, step_on(ladder, first, before, score)
end
local EARLY, EXHAUSTED, GREEDY, NEW, MISSING, FORBIDDEN, SEQUENTIAL, SLOW = 1, 2, 3, 4, 5, 6, 7, 8
local IMPATIENCE = { EARLY, EXHAUSTED, GREEDY }
local BURSTS, ENVIRONMENTS = 11, 12
local ONE = 1000000
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
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local given = cjson.decode(ARGV[1])
local half_life, rules = given[1], {}
for index = 2, #given, 5 do
rules[#rules + 1] = {
weight = given[index],
threshold = given[index + 1],
half_life = given[index + 2],
needs = given[index + 3],
label = given[index + 4],
}
end
local function live_until(key, last)
local lives = math.ceil((last - now) / 1000)
local left = redis.call('PTTL', key)
if left == -1 then
for _, field in ipairs(redis.call('HKEYS', key)) do
if field ~= 'b' and field ~= 'v' then return end
end
elseif left >= lives then
return
end
redis.call('PEXPIRE', key, string.format('%.0f', lives))
end
local function is_first(key, id, lasts, most)
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
if redis.call('ZADD', key, 'NX', string.format('%.0f', now + lasts * 1000), id) == 0 then return false end
for _, old in ipairs(redis.call('ZRANGE', key, 0, -(most + 1))) do redis.call('ZREM', key, old) end
redis.call('PEXPIRE', key, string.format('%.0f', lasts))
return true
end
local answer, key_at = {}, 1
local function tell(number) answer[#answer + 1] = number end
for index = 2, #ARGV do
local plan = cjson.decode(ARGV[index])
local ladder = plan[1]
local key, marks_key = KEYS[key_at], KEYS[key_at + 1]
key_at = key_at + 2
local events = plan[2]
if plan[3] then
if not is_first(KEYS[key_at], plan[3], plan[4], plan[5]) then events = {} end
key_at = key_at + 1
end
local known = redis.call('HMGET', key, 'b', 'v')
local conduct = unpack_conduct(known[2], #rules)
local marked_at, touched = conduct.marked_at, {}
for _, row in ipairs(events) do
local event = {
at = row[1],
outcome = row[2],
told = row[3],
tag = row[4],
target = row[5],
sequence = row[6],
endpoint = row[7],
place = row[8],
software = row[9],
known = row[10],
result = row[11],
adds = { unpack(row, 12) },
}
observe(conduct, marks_key, event, rules, half_life, now, touched)
end
local standing, before, began, changed, values =
judge(conduct, read_score(known[1]), rules, half_life, ladder, now, touched)
redis.call(
'HSET', key,
'b', pack_standing(standing),
'v', pack_conduct(conduct)
)
local last = remembered_until(conduct, rules, half_life, now)
live_until(key, last)
if conduct.marked_at ~= marked_at then
redis.call('PEXPIRE', marks_key, string.format('%.0f', math.ceil(2 * half_life / 1000) + 60000))
end
tell(standing.score)
tell(before)
tell(standing.step)
tell(standing.signals)
tell(began)
tell(changed)
if changed > 0 then
for signal, count in ipairs(conduct.counts) do
tell(math.floor(values[signal] / 1000))
tell(count[3])
end
for _, incident in ipairs(conduct.labels) do
tell(incident[1])
tell(incident[2])
end
end
end
return answer`

/** lua/permissions.lua. Calls TIME, GET, MGET, SET, EXISTS, HMGET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE, ZADD, ZREM, ZCOUNT, ZMSCORE, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE, HSET, XADD, XLEN, XRANGE, XREVRANGE, XTRIM, HGETALL, HDEL, HKEYS, PTTL, SETBIT, PERSIST, LLEN, HEXISTS, HLEN, HVALS. */
export const permissionsScript: string = `local key = KEYS[1]
local missing, seen = {}, {}
local function look(name, reply)
local err = type(reply) == 'table' and reply.err
if not err then
return
end
if string.find(err, 'NOPERM', 1, true) or string.find(err, 'ACL failure in script', 1, true) or string.find(err, 'user executing the script can', 1, true) then
if string.find(err, '%f[%w]keys?%f[%W]') then
name = '~'
end
if not seen[name] then
seen[name] = true
missing[#missing + 1] = name
end
end
end
look('time', redis.pcall('TIME'))
look('get', redis.pcall('GET', key))
look('mget', redis.pcall('MGET', key))
look('set', redis.pcall('SET', key, '1', 'XX'))
look('exists', redis.pcall('EXISTS', key))
look('hmget', redis.pcall('HMGET', key, 'a'))
look('unlink', redis.pcall('UNLINK', key))
look('lindex', redis.pcall('LINDEX', key, '0'))
look('lrange', redis.pcall('LRANGE', key, '0', '0'))
look('lset', redis.pcall('LSET', key, '0', 'a'))
look('lrem', redis.pcall('LREM', key, '0', 'a'))
look('ltrim', redis.pcall('LTRIM', key, '0', '0'))
look('llen', redis.pcall('LLEN', key))
look('pexpire', redis.pcall('PEXPIRE', key, '1'))
look('persist', redis.pcall('PERSIST', key))
look('pttl', redis.pcall('PTTL', key))
look('zadd', redis.pcall('ZADD', key, 'XX', '1', 'a'))
look('zrem', redis.pcall('ZREM', key, 'a'))
look('zcount', redis.pcall('ZCOUNT', key, '0', '0'))
look('zmscore', redis.pcall('ZMSCORE', key, 'a'))
look('zrange', redis.pcall('ZRANGE', key, '0', '0'))
look('zrangebyscore', redis.pcall('ZRANGEBYSCORE', key, '0', '0'))
look('zremrangebyscore', redis.pcall('ZREMRANGEBYSCORE', key, '0', '0'))
look('hgetall', redis.pcall('HGETALL', key))
look('hdel', redis.pcall('HDEL', key, 'a'))
look('hkeys', redis.pcall('HKEYS', key))
look('hvals', redis.pcall('HVALS', key))
look('hexists', redis.pcall('HEXISTS', key, 'a'))
look('hlen', redis.pcall('HLEN', key))
look('xadd', redis.pcall('XADD', key, 'NOMKSTREAM', '*', 'a', '1'))
look('xlen', redis.pcall('XLEN', key))
look('xrange', redis.pcall('XRANGE', key, '-', '+'))
look('xrevrange', redis.pcall('XREVRANGE', key, '+', '-'))
look('xtrim', redis.pcall('XTRIM', key, 'MAXLEN', '0'))
if not seen['unlink'] and not seen['~'] then
look('rpush', redis.pcall('RPUSH', key, 'a'))
redis.pcall('UNLINK', key)
look('hset', redis.pcall('HSET', key, 'a', '1'))
redis.pcall('UNLINK', key)
look('setbit', redis.pcall('SETBIT', key, '0', '1'))
redis.pcall('UNLINK', key)
end
return missing`

/** lua/rulings.lua. Calls TIME, HSET, HDEL, HGETALL, PERSIST, PEXPIRE, PTTL, RPUSH, LTRIM, LLEN, UNLINK. */
export const rulingsScript: string = `local plan = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key, trail = KEYS[1], KEYS[2]
local at = 2
for _ = 1, plan[1] do
redis.call('HSET', key, plan[at], plan[at + 1])
at = at + 2
end
local taken = plan[at]
for index = 1, taken do
local field = plan[at + index]
redis.call('HDEL', key, field)
if field == 'v' then redis.call('UNLINK', KEYS[3]) end
end
local line = plan[at + taken + 1]
if line ~= '' then
redis.call('RPUSH', trail, line)
redis.call('LTRIM', trail, '-' .. ARGV[2], -1)
end
local fields, answer, lives, longest = redis.call('HGETALL', key), {}, false, 0
local held = {}
for index = 1, #fields, 2 do
local name, value = fields[index], fields[index + 1]
held[name] = value
if name ~= 'b' and name ~= 'v' then
answer[#answer + 1] = name
answer[#answer + 1] = value
if string.sub(name, 1, 2) == 'a:' then lives = true end
end
end
local function until_time(name, forever)
if not held[name] then return end
if tonumber(held[name]) == forever then lives = true else longest = math.max(longest, tonumber(held[name])) end
end
until_time('s', -1)
until_time('u', 0)
if #fields > 0 and (plan[1] > 0 or taken > 0) then
if lives then
redis.call('PERSIST', key)
else
local wanted, left = math.max(86400000, math.ceil((longest - now) / 1000)), redis.call('PTTL', key)
if left < wanted then redis.call('PEXPIRE', key, string.format('%.0f', wanted)) end
end
end
answer[#answer + 1] = redis.call('LLEN', trail)
return answer`

/** lua/settle.lua. Calls TIME, GET, SET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE, ZADD, ZREM, ZCOUNT, ZMSCORE, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE, EXISTS, HMGET, HSET, XADD, XLEN, XRANGE, XREVRANGE, XTRIM. */
export const settleScript: string = `local function load_partition(key, value, apart)
if value == nil and not apart then value = redis.call('GET', key) end
local partition = { key = key, order = {}, records = {}, stored = value }
if value then
local from, size = 1, #value
while from + 10 <= size do
local id, expires, length = struct.unpack('<I4I5I2', value, from)
partition.order[#partition.order + 1] = id
partition.records[id] = { expires = expires * 1000000, bytes = string.sub(value, from + 11, from + 10 + length) }
from = from + 11 + length
end
end
return partition
end
local function save_partition(partition, now)
local parts, expires = {}, 0
for _, id in ipairs(partition.order) do
local record = partition.records[id]
if record.changed then
record.bytes, record.expires = record.algorithm.pack(record.state, record.limit, now)
end
if record.expires > now then
local second = math.ceil(record.expires / 1000000)
expires = math.max(expires, second * 1000000)
parts[#parts + 1] = struct.pack('<I4I5I2', id, second, #record.bytes) .. record.bytes
end
end
if #parts > 0 then
redis.call('SET', partition.key, table.concat(parts), 'PX', string.format('%.0f', math.ceil((expires - now) / 1000)))
elseif partition.stored then
redis.call('UNLINK', partition.key)
end
end
local define = {}
local defined = {}
local function algorithm_of(kind)
local algorithm = defined[kind]
if not algorithm then
algorithm = define[kind]()
defined[kind] = algorithm
end
return algorithm
end
local function keep(partition, record)
record.changed = true
partition.dirty = true
end
local function open_record(partition, entry, now)
local record = partition.records[entry.id]
if not record then
record = { expires = 0 }
partition.records[entry.id] = record
partition.order[#partition.order + 1] = entry.id
end
record.algorithm = algorithm_of(entry.kind)
record.limit = entry
record.state = record.algorithm.open(record.state or record.bytes, entry, now)
if record.state.mended then keep(partition, record) end
return record
end
local function read_entry(plan, from, base, commit, correcting)
local extra = plan[from + 8]
local own_key = KEYS[base + plan[from + 1]]
return {
commit = commit,
correcting = correcting,
apart = plan[from] == 0,
key = plan[from] == 0 and own_key or KEYS[base + plan[from]],
own_key = own_key,
kind = plan[from + 2],
id = plan[from + 3],
window = plan[from + 4],
quota = plan[from + 5],
capacity = plan[from + 6],
cost = plan[from + 7],
extra = extra ~= 0 and extra or nil,
at = plan[from + 9],
added = plan[from + 10],
does = plan[from + 11],
}
end
define[1] = function()
local largest_weight, most = 562949953421312, 9007199254740991
local just_below, just_above = 1 - 2 ^ -51, 1 + 2 ^ -51
local longest = 366 * 24 * 3600000000
local function scale_of(limit)
local scale = 1
while math.max(limit.capacity, limit.quota) * limit.window / scale > largest_weight do scale = scale * 10 end
return scale
end
local function weight_of(limit, scale)
return math.ceil(limit.window / scale)
end
local function deficit_at(state, quota, time)
local paid = math.max(0, time - state.at) * quota
if state.scale ~= 1 then paid = math.floor(paid / state.scale * just_below) end
return math.max(0, state.deficit - paid)
end
local function reaches(state, spare)
if state.deficit <= spare then return state.at end
local rounding = 1
if state.scale ~= 1 then rounding = just_above end
local time = state.at + math.ceil((state.deficit - spare) * state.scale / state.quota * rounding)
if not (time <= most) then return math.huge end
while deficit_at(state, state.quota, time) > spare do time = time + 1 end
while deficit_at(state, state.quota, time - 1) <= spare do time = time - 1 end
return time
end
local function is_full(state, now)
return deficit_at(state, state.quota, now) == 0 or (state.quota == 0 and state.at + longest <= now)
end
local function rescale(state, limit, scale)
local before, after = weight_of(limit, state.scale), weight_of(limit, scale)
local units = math.floor(state.deficit / before)
local rest = state.deficit - units * before
state.deficit = units * after + math.ceil(rest * after / before * just_above)
state.scale = scale
end
local function expires(state)
if state.quota == 0 and state.deficit > 0 then return state.at + longest end
return math.min(most, reaches(state, 0))
end
return {
open = function(stored, limit, now)
if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale_of(limit) } end
local state = stored
if type(stored) == 'string' then
local deficit, at, quota, power = struct.unpack('<dddB', stored)
state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
end
if state.at > now + limit.window then
state.at = now
state.mended = true
end
local quota, scale = state.quota, state.scale
if not limit.correcting then quota, scale = limit.quota, scale_of(limit) end
if is_full(state, now) then
return { deficit = 0, at = math.max(state.at, now), quota = quota, scale = scale, mended = state.mended }
end
if state.quota ~= quota then
state.deficit = deficit_at(state, math.min(state.quota, quota), now)
state.at = math.max(state.at, now)
state.quota = quota
state.mended = true
end
if state.scale < scale then
rescale(state, limit, scale)
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
local spare = (limit.capacity - cost) * weight_of(limit, state.scale)
if deficit_at(state, state.quota, now) <= spare then return now end
return reaches(state, spare)
end,
remaining = function(state, limit, now)
local weight = weight_of(limit, state.scale)
return math.max(0, math.floor((limit.capacity * weight - deficit_at(state, state.quota, now)) / weight))
end,
charge = function(state, limit, now, cost)
local weight = cost * weight_of(limit, state.scale)
state.deficit = math.min(most, deficit_at(state, state.quota, now) + weight)
state.at = math.max(state.at, now)
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
local weight = cost * weight_of(limit, state.scale)
state.deficit = math.max(0, deficit_at(state, state.quota, now) - weight)
state.at = math.max(state.at, now)
end,
room = function(state, limit)
return {
refills = true,
deficit = state.deficit,
at = state.at,
quota = state.quota,
scale = state.scale,
weight = weight_of(limit, state.scale),
capacity = limit.capacity,
}
end,
expires = expires,
pack = function(state)
local power = math.floor(math.log10(state.scale) + 0.5)
return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires(state)
end,
}
end
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
state[#state] = nil
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
define[3] = function()
local chunk, longest_chunk, most_count = 32, 256, 1099511627775
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
local function seen_of(state)
local seen = state.seen
if not seen then
seen = { times = {}, sums = {}, size = 0, first = state.gone }
state.seen = seen
end
local past = state.gone - seen.first
return seen, past, past > 0 and seen.sums[past] or 0
end
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
local young = 0
while true do
local entries = redis.call('LRANGE', state.key, -(young + chunk), -(young + 1))
local index = #entries
while index > 0 and time_in(state, entries[index]) >= charged_at do index = index - 1 end
young = young + #entries - index
if index > 0 or #entries < chunk then break end
end
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
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
return struct.pack('<dI7', state.total, state.newest), ends
end,
}
end
define[4] = function()
local DAY = 86400000000
local function days_to(year, month, day)
if month <= 2 then year = year - 1 end
local in_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
return year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) + in_year - 719468
end
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
define[5] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used, granted = true }
end
if not state or state.start + limit.capacity <= now then return { start = now, used = 0 } end
if state.start > now + limit.capacity then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if cost > limit.quota then return math.huge end
if now < state.start + limit.window and state.used + cost <= limit.quota then return now end
return state.start + limit.capacity
end,
remaining = function(state, limit, now)
if now >= state.start + limit.window then return 0 end
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
state.granted = true
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit, now)
if not state.granted then return now end
return state.start + limit.capacity
end,
pack = function(state, limit, now)
if not state.granted then return '', now end
return struct.pack('<dd', state.start, state.used), state.start + limit.capacity
end,
}
end
define[6] = function()
local unknown_hold, smoothing = 1000000, 8
local function count(state)
if state.absent then return 0 end
return redis.call('ZCOUNT', state.key, state.live, '+inf')
end
local function scores(state, limit, now)
if #limit.extra == 0 then return {} end
local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
for index = 1, #found do
local score = not state.absent and found[index] and tonumber(found[index])
found[index] = score and score > now and score or false
end
return found
end
local function ends_of(state, limit, now)
local found = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES')
local ends = {}
for index = 2, #found, 2 do
local score = tonumber(found[index])
ends[#ends + 1] = score > now + 2 * limit.window and now + limit.window or score
end
table.sort(ends)
return ends
end
local function add(state, limit, now)
local arguments = {}
for _, member in ipairs(limit.extra) do
arguments[#arguments + 1] = string.format('%.0f', now + limit.window)
arguments[#arguments + 1] = member
end
if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
end
local function last_of(state)
if state.absent then return 0 end
local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
return #last > 0 and tonumber(last[2]) or 0
end
local function expires(state, limit, now)
if state.ahead then
local ends = ends_of(state, limit, now)
return ends[#ends]
end
return math.max(now, last_of(state))
end
return {
open = function(stored, limit, now)
local state = stored
if not stored then
state = { held = 0, changed_at = 0 }
elseif type(stored) == 'string' then
local held, changed_at = struct.unpack('<dd', stored)
state = { held = held, changed_at = changed_at }
end
state.key = limit.own_key
state.live = string.format('(%.0f', now)
state.absent = not stored and not limit.commit
if not stored and limit.commit then redis.call('UNLINK', state.key) end
state.ahead = last_of(state) > now + 2 * limit.window
if limit.commit then
if redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now)) > 0 then state.mended = true end
if state.ahead then
local ahead = redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now + 2 * limit.window), '+inf')
for _, member in ipairs(ahead) do
redis.call('ZADD', state.key, string.format('%.0f', now + limit.window), member)
end
state.ahead = false
state.mended = true
end
end
if state.changed_at > 0 and (state.changed_at + limit.window <= now or state.changed_at > now + limit.window) then
state.held, state.changed_at = 0, 0
state.mended = true
end
return state
end,
needs = function(state, limit, now)
local needed = 0
for _, score in ipairs(scores(state, limit, now)) do
if not score then needed = needed + 1 end
end
return needed
end,
earliest = function(state, limit, now, cost)
local held = count(state)
local excess = held + cost - limit.quota
if excess <= 0 then return now end
local expiry = now + 1
if state.ahead then
expiry = ends_of(state, limit, now)[math.min(excess, held)] or expiry
elseif held > 0 then
expiry = tonumber(redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT',
math.min(excess, held) - 1, 1)[2])
end
if limit.added == 1 then return expiry end
local hold = state.held == 0 and unknown_hold or state.held
return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held)), now - state.changed_at))
end,
remaining = function(state, limit)
return math.max(0, limit.quota - count(state))
end,
charge = function(state, limit, now)
local added = 0
for index, score in ipairs(scores(state, limit, now)) do
if not score then added = added + 2 ^ (index - 1) end
end
add(state, limit, now)
state.changed_at = now
return added
end,
refund = function(state, limit, now, charged_at, cost, added)
for index, member in ipairs(limit.extra) do
if math.floor(added / 2 ^ (index - 1)) % 2 == 1 then redis.call('ZREM', state.key, member) end
end
end,
release = function(state, limit, now, charged_at)
if #limit.extra == 0 or redis.call('ZREM', state.key, unpack(limit.extra)) == 0 then return end
local duration = math.max(1, now - charged_at)
if state.held == 0 then
state.held = duration
else
state.held = math.max(1, state.held + math.floor((duration - state.held) / smoothing))
end
state.changed_at = now
end,
renew = add,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
if state.held > 0 then ends = math.max(ends, state.changed_at + limit.window) end
return struct.pack('<dd', state.held, state.changed_at), ends
end,
}
end
define[7] = define[2]
define[8] = function()
local function count(state)
if state.absent then return 0 end
return redis.call('ZCOUNT', state.key, state.live, '+inf')
end
local function touched(state, limit, now)
if #limit.extra == 0 then return {} end
local found = redis.call('ZMSCORE', state.key, unpack(limit.extra))
for index = 1, #found do
local score = not state.absent and found[index] and tonumber(found[index])
found[index] = score and score + limit.window > now and score or false
end
return found
end
local function newest(state)
if state.absent then return 0 end
local last = redis.call('ZRANGE', state.key, -1, -1, 'WITHSCORES')
return #last > 0 and tonumber(last[2]) or 0
end
local function expires(state, limit, now)
if state.ahead then return now + limit.window end
return math.max(now, newest(state) + limit.window)
end
return {
open = function(stored, limit, now)
local state = type(stored) == 'table' and stored or {}
state.key = limit.own_key
state.live = string.format('(%.0f', now - limit.window)
state.absent = not stored and not limit.commit
if not stored and limit.commit then redis.call('UNLINK', state.key) end
state.ahead = newest(state) > now + limit.window
if limit.commit then
local gone = redis.call('ZREMRANGEBYSCORE', state.key, '-inf', string.format('%.0f', now - limit.window))
if gone > 0 then state.mended = true end
if state.ahead then
for _, target in ipairs(redis.call('ZRANGEBYSCORE', state.key, string.format('(%.0f', now), '+inf')) do
redis.call('ZADD', state.key, string.format('%.0f', now), target)
end
state.ahead = false
state.mended = true
end
end
return state
end,
needs = function(state, limit, now)
local needed = 0
for _, score in ipairs(touched(state, limit, now)) do
if not score then needed = needed + 1 end
end
return needed
end,
earliest = function(state, limit, now, cost)
local live = count(state)
if live + cost <= limit.quota then return now end
local room = math.max(#limit.extra, cost)
if room > limit.quota then return math.huge end
local ours, known = {}, 0
for index, score in ipairs(touched(state, limit, now)) do
if score then
ours[limit.extra[index]] = true
known = known + 1
end
end
local excess = live - known + room - limit.quota
local oldest = redis.call('ZRANGEBYSCORE', state.key, state.live, '+inf', 'WITHSCORES', 'LIMIT', 0, excess + known)
for index = 1, #oldest, 2 do
if not ours[oldest[index]] then
excess = excess - 1
if excess <= 0 then
local at = tonumber(oldest[index + 1])
return (state.ahead and math.min(at, now) or at) + limit.window
end
end
end
return now
end,
remaining = function(state, limit)
return math.max(0, limit.quota - count(state))
end,
charge = function(state, limit, now)
local at = string.format('%.0f', math.max(now, newest(state)))
local added, arguments = 0, {}
for index, score in ipairs(touched(state, limit, now)) do
if not score then added = added + 2 ^ (index - 1) end
arguments[#arguments + 1] = at
arguments[#arguments + 1] = limit.extra[index]
end
if #arguments > 0 then redis.call('ZADD', state.key, unpack(arguments)) end
return added
end,
refund = function(state, limit, now, charged_at, cost, added)
for index, score in ipairs(touched(state, limit, now)) do
if score == charged_at and math.floor(added / 2 ^ (index - 1)) % 2 == 1 then
redis.call('ZREM', state.key, limit.extra[index])
end
end
end,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
return '.', ends
end,
}
end
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
define[10] = function()
local function is_spent(state, limit)
return state.holder and state.holder ~= limit.extra[2]
end
return {
open = function(stored, limit)
return { holder = redis.call('GET', limit.own_key) }
end,
earliest = function(state, limit, now)
if is_spent(state, limit) then return math.huge end
return now
end,
remaining = function(state, limit)
return is_spent(state, limit) and 0 or 1
end,
charge = function(state, limit)
state.holder = limit.extra[2]
redis.call('SET', limit.own_key, state.holder, 'PX', string.format('%.0f', math.ceil(limit.window / 1000)))
return 0
end,
refund = function(state, limit)
if not is_spent(state, limit) then redis.call('UNLINK', limit.own_key) end
end,
expires = function(state, limit, now)
return now
end,
pack = function()
return '', 0
end,
}
end
local function make_ledger()
local CHARGED, HELD, CAPTURED, RELEASED, EXPIRED, VOID = 1, 2, 3, 4, 5, 6
local TOTALS = { 'available', 'held', 'granted', 'spent', 'refunded' }
local KEPT = 30 * 24 * 3600 * 1000
local PURCHASE_KEPT = 730 * 24 * 3600 * 1000
local VOID_KEPT = 600000
local MOST = 9007199254740991
local MOST_SWEPT, TRIMMED = 1000, 100
local ledger = {}
local function whole(number)
return string.format('%.0f', number)
end
local function effect(kind, available, held)
local net = available + held
if kind == 'grant' or kind == 'revoke' then return available, held, net, 0, 0 end
if kind == 'charge' or kind == 'capture' then return available, held, 0, -net, 0 end
if kind == 'refund' then return available, held, 0, 0, net end
return available, held, 0, 0, 0
end
local function read(key)
local sums = redis.call('HMGET', key, 'available', 'held', 'granted', 'spent', 'refunded')
local known = sums[1] ~= false
for index = 1, 5 do sums[index] = tonumber(sums[index] or 0) end
return sums, known
end
local function write(key, sums)
local row = {}
for index = 1, 5 do
row[index * 2 - 1] = TOTALS[index]
row[index * 2] = whole(sums[index])
end
redis.call('HSET', key, unpack(row))
end
local function add(sums, kind, available, held)
local effects = { effect(kind, available, held) }
for index = 1, 5 do sums[index] = sums[index] + effects[index] end
end
local function add_entries(sums, entries)
for _, entry in ipairs(entries) do
local fields = entry[2]
add(sums, fields[2], tonumber(fields[4]), tonumber(fields[6]))
end
end
local function trim(account)
local stream, checkpoint = account.key .. ':s', account.key .. ':k'
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', TRIMMED)
local sums = read(checkpoint)
add_entries(sums, oldest)
write(checkpoint, sums)
redis.call('HSET', checkpoint, 'id', oldest[#oldest][1])
redis.call('XTRIM', stream, 'MAXLEN', '=', whole(account.length - #oldest))
end
local function move(account, kind, available, held, ref)
add(account.sums, kind, available, held)
account.known = true
local stream = account.key .. ':s'
account.id = redis.call('XADD', stream, '*', 't', kind, 'a', whole(available), 'h', whole(held), 'r', ref)
write(account.key, account.sums)
account.length = redis.call('XLEN', stream)
if account.length >= account.history + TRIMMED then trim(account) end
end
local function charge_key(account, id)
return account.key .. ':c:' .. id
end
local function find(account, id)
local stored = redis.call('GET', charge_key(account, id))
if not stored then return nil end
local charge = { id = id }
local state, amount, spent, refunded = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
charge.state, charge.amount, charge.spent, charge.refunded =
tonumber(state), tonumber(amount), tonumber(spent), tonumber(refunded)
return charge
end
local function keep_charge(account, charge, ms)
local value = string.format('%d %.0f %.0f %.0f', charge.state, charge.amount, charge.spent, charge.refunded)
redis.call('SET', charge_key(account, charge.id), value, 'PX', whole(ms or KEPT))
end
local function hold_name(charge)
return charge.id .. ' ' .. whole(charge.amount)
end
local function sweep(account, now)
local holds = account.key .. ':h'
local ended = redis.call('ZRANGEBYSCORE', holds, '-inf', whole(now), 'LIMIT', 0, MOST_SWEPT)
for _, name in ipairs(ended) do
local id, amount = string.match(name, '^(%S+) (%d+)$')
amount = tonumber(amount)
redis.call('ZREM', holds, name)
keep_charge(account, { id = id, state = EXPIRED, amount = amount, spent = 0, refunded = 0 })
move(account, 'expire', amount, -amount, id)
end
end
function ledger.open(key, now, history, looking)
local sums, known = read(key)
local account = { key = key, sums = sums, known = known, history = history }
if not looking and account.sums[2] > 0 then sweep(account, now) end
return account
end
function ledger.has(account, id, amount)
return account.sums[1] >= amount and redis.call('EXISTS', charge_key(account, id)) == 0
end
function ledger.charge(account, id, amount, held_for, now)
local charge = { id = id, amount = amount, spent = 0, refunded = 0 }
if held_for > 0 then
charge.state = HELD
keep_charge(account, charge, math.ceil(held_for / 1000) + KEPT)
redis.call('ZADD', account.key .. ':h', whole(now + held_for), hold_name(charge))
move(account, 'hold', -amount, amount, id)
else
charge.state, charge.spent = CHARGED, amount
keep_charge(account, charge)
move(account, 'charge', -amount, 0, id)
end
end
local function end_hold(account, charge, spent, state)
redis.call('ZREM', account.key .. ':h', hold_name(charge))
charge.spent = spent
charge.state = state
keep_charge(account, charge)
move(account, (spent > 0 or state == CAPTURED) and 'capture' or 'release', charge.amount - spent, -charge.amount, charge.id)
end
local function refund(account, charge, amount)
charge.refunded = charge.refunded + amount
keep_charge(account, charge)
move(account, 'refund', amount, 0, charge.id)
end
local UNKNOWN, SHORT, ABOVE, WAS_CAPTURED, WAS_RELEASED, HAS_EXPIRED, NO_HOLD, OTHER_AMOUNT, FULL, NOT_SPENT, NO_ACCOUNT =
1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local not_held = {
[CHARGED] = NO_HOLD,
[CAPTURED] = WAS_CAPTURED,
[RELEASED] = WAS_RELEASED,
[EXPIRED] = HAS_EXPIRED,
[VOID] = WAS_RELEASED,
}
function ledger.capture(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state ~= HELD then return not_held[charge.state] end
if amount > charge.amount then return ABOVE end
end_hold(account, charge, amount < 0 and charge.amount or amount, CAPTURED)
return 0
end
function ledger.release(account, id)
local charge = find(account, id)
if not charge then return UNKNOWN end
if charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED or charge.state == CAPTURED then
return not_held[charge.state]
end
return 0
end
function ledger.refund(account, id, amount)
local charge = find(account, id)
if not charge then return UNKNOWN end
local left = charge.spent - charge.refunded
if charge.state ~= CHARGED and charge.state ~= CAPTURED then return NOT_SPENT end
if amount < 0 then amount = left end
if amount > left then return ABOVE end
if amount > 0 then refund(account, charge, amount) end
return 0
end
function ledger.settle(account, id, total)
local charge = find(account, id)
if not charge then return UNKNOWN, 0 end
if charge.state == RELEASED or charge.state == EXPIRED or charge.state == VOID then return not_held[charge.state], 0 end
if charge.state == HELD then end_hold(account, charge, math.min(total, charge.amount), CHARGED) end
local by = total - (charge.spent - charge.refunded)
if by < 0 then
refund(account, charge, -by)
elseif by > 0 then
by = math.max(0, math.min(by, account.sums[1]))
if by > 0 then
charge.spent = charge.spent + by
keep_charge(account, charge)
move(account, 'charge', -by, 0, id)
end
end
return 0, charge.spent - charge.refunded
end
function ledger.cancel(account, id)
local charge = find(account, id)
if not charge then
keep_charge(account, { id = id, state = VOID, amount = 0, spent = 0, refunded = 0 }, VOID_KEPT)
elseif charge.state == HELD then
end_hold(account, charge, 0, RELEASED)
elseif charge.state == CHARGED then
charge.state = VOID
local left = charge.spent - charge.refunded
if left > 0 then refund(account, charge, left) else keep_charge(account, charge) end
end
return 0
end
function ledger.done(account, name, amount)
if name == '' then return nil end
local stored = redis.call('GET', account.key .. ':i:' .. name)
if not stored then return nil end
local of, id = string.match(stored, '^(-?%d+) (.+)$')
account.id = id
return tonumber(of) == amount and 0 or OTHER_AMOUNT
end
function ledger.note_done(account, name, amount)
if name == '' or not account.id then return end
redis.call('SET', account.key .. ':i:' .. name, whole(amount) .. ' ' .. account.id, 'PX', whole(KEPT))
end
function ledger.grant(account, amount, ref)
if amount < 0 and not account.known then return NO_ACCOUNT end
if account.sums[3] + amount > MOST or account.sums[1] + account.sums[2] + amount > MOST then return FULL end
move(account, amount < 0 and 'revoke' or 'grant', amount, 0, ref)
return 0
end
local function purchase_key(account, name)
return account.key .. ':p:' .. name
end
local MOST_SO_FAR, ONCE, RETURNED = 1, 2, 3
local function ask_early(key, early, by, how, part, price, ref)
local shares = early and cjson.decode(early) or {}
local own
for _, share in ipairs(shares) do
if share[1] == by then own = share end
end
if how == RETURNED then part, price = 0, 1 end
if not own then
shares[#shares + 1] = { by, part, price, ref }
elseif how == RETURNED or (how == MOST_SO_FAR and part * own[3] > own[2] * price) then
own[2], own[3] = part, price
end
redis.call('HSET', key, 'early', cjson.encode(shares))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
end
function ledger.take_back(account, name, by, how, part, price, ref, early)
local key, field = purchase_key(account, name), 'by:' .. by
local row = redis.call('HMGET', key, 'credits', 'taken', field, 'early')
if not row[1] then
if early then ask_early(key, row[4], by, how, part, price, ref) end
return UNKNOWN, 0, 0
end
local credits, taken, before = tonumber(row[1]), tonumber(row[2] or 0), tonumber(row[3] or 0)
local amount = math.max(0, math.min(credits, math.floor(credits * part / price)))
if how == MOST_SO_FAR then
amount = math.max(before, amount)
elseif how == RETURNED then
amount = 0
elseif row[3] then
amount = before
end
local more = taken - before + amount
local moved = math.min(credits, more) - math.min(credits, taken)
local code = moved == 0 and 0 or ledger.grant(account, -moved, ref)
if code ~= 0 then return code, 0, 0 end
redis.call('HSET', key, 'taken', whole(more), field, whole(amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
return 0, moved, row[3] and 0 or 1
end
function ledger.buy(account, amount, name, ref)
local code = ledger.grant(account, amount, ref)
if code ~= 0 or name == '' then return code end
local key, id = purchase_key(account, name), account.id
local before = redis.call('HMGET', key, 'credits', 'early')
redis.call('HSET', key, 'credits', whole((tonumber(before[1]) or 0) + amount))
redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
if not before[1] and before[2] then
for _, share in ipairs(cjson.decode(before[2])) do
ledger.take_back(account, name, share[1], ONCE, share[2], share[3], share[4])
end
account.id = id
end
return code
end
function ledger.hold(account, id, amount, held_for, now)
local before = find(account, id)
if before then return before.amount == amount and 0 or OTHER_AMOUNT end
if account.sums[1] < amount then return SHORT end
ledger.charge(account, id, amount, held_for, now)
return 0
end
local function came_before(one, other)
local ms, nth = string.match(one, '^(%d+)-(%d+)$')
local other_ms, other_nth = string.match(other, '^(%d+)-(%d+)$')
if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
return tonumber(nth) < tonumber(other_nth)
end
function ledger.history(account, since, limit, after, backwards)
local answer = {}
local function tell(id, kind, available, held, ref)
local size = #answer
answer[size + 1], answer[size + 2], answer[size + 3], answer[size + 4], answer[size + 5] = id, kind, available, held, ref
end
local trimmed = redis.call('HMGET', account.key .. ':k', 'id', 'available', 'held')
local is_told = trimmed[1] and tonumber(string.match(trimmed[1], '^%d+')) >= since
if is_told and after ~= '' then
if backwards then is_told = came_before(trimmed[1], after) else is_told = came_before(after, trimmed[1]) end
end
if is_told and not backwards then
tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '')
limit = limit - 1
end
if limit < 1 then return answer end
local stream, entries = account.key .. ':s', nil
local from, till = whole(since), '+'
if backwards then
if after ~= '' then till = '(' .. after end
entries = redis.call('XREVRANGE', stream, till, from, 'COUNT', whole(limit))
else
if after ~= '' and tonumber(string.match(after, '^%d+')) >= since then from = '(' .. after end
entries = redis.call('XRANGE', stream, from, till, 'COUNT', whole(limit))
end
for _, entry in ipairs(entries) do
local fields = entry[2]
tell(entry[1], fields[2], fields[4], fields[6], fields[8])
end
if is_told and backwards and #entries < limit then tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '') end
return answer
end
function ledger.sum_up(account, rebuild)
local sums = read(account.key .. ':k')
add_entries(sums, redis.call('XRANGE', account.key .. ':s', '-', '+'))
if rebuild then
account.sums = sums
write(account.key, sums)
end
return sums
end
return ledger
end
local made_ledger
local function the_ledger()
made_ledger = made_ledger or make_ledger()
return made_ledger
end
define[12] = function()
local ledger = the_ledger()
return {
open = function(stored, limit, now)
if type(stored) == 'table' then return stored end
return { account = ledger.open(limit.own_key, now, tonumber(limit.extra[3]), not limit.commit) }
end,
earliest = function(state, limit, now, cost)
if state.charged or ledger.has(state.account, limit.extra[1], cost) then return now end
return math.huge
end,
remaining = function(state)
return state.account.sums[1]
end,
charge = function(state, limit, now, cost)
state.charged = true
ledger.charge(state.account, limit.extra[1], cost, tonumber(limit.extra[2]), now)
return 0
end,
refund = function(state, limit)
ledger.cancel(state.account, limit.extra[1])
end,
expires = function(state, limit, now)
return now + state.account.sums[2]
end,
pack = function()
return '', 0
end,
}
end
local RELEASE, RENEW = 1, 2
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local partitions = {}
for index = 1, plan[1] do
local entry = read_entry(plan, index * 12 - 10, 0, true, true)
local partition = partitions[entry.key]
if not partition then
partition = load_partition(entry.key, nil, entry.apart)
partitions[entry.key] = partition
end
local record = open_record(partition, entry, now)
if entry.does == RELEASE then
record.algorithm.release(record.state, entry, now, entry.at)
elseif entry.does == RENEW then
record.algorithm.renew(record.state, entry, now)
elseif entry.cost < 0 then
record.algorithm.refund(record.state, entry, now, entry.at, -entry.cost, entry.added)
elseif entry.cost > 0 then
record.algorithm.charge(record.state, entry, now, entry.cost)
if record.algorithm.note then record.algorithm.note(record.state, entry, entry.cost) end
end
keep(partition, record)
end
for _, partition in pairs(partitions) do save_partition(partition, now) end
return plan[1]`

/** lua/shared.lua. Calls TIME, XADD, PEXPIRE, PTTL, PERSIST, XREVRANGE, HSET, HEXISTS, HLEN, HDEL, HVALS, LRANGE, ZADD, ZREM, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE. */
export const sharedScript: string = `local does, key, ends = ARGV[1], KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text_of(number) return string.format('%.0f', number) end
local function drop_over()
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', text_of(now), 'LIMIT', 0, 1000)
for _, name in ipairs(over) do
redis.call('HDEL', key, name)
redis.call('ZREM', ends, name)
end
return #over == 1000
end
if does == 'add' then
redis.call('XADD', key, 'MAXLEN', '=', ARGV[3], '*', 'i', ARGV[2])
redis.call('PEXPIRE', key, ARGV[4])
return 1
end
if does == 'read' then
local texts = {}
for index, entry in ipairs(redis.call('XREVRANGE', key, '+', ARGV[2], 'COUNT', ARGV[3])) do
texts[index] = entry[2][2]
end
return texts
end
if does == 'put' then
drop_over()
local name, lasts = ARGV[2], tonumber(ARGV[5])
local size = redis.call('HLEN', key)
if size >= tonumber(ARGV[4]) and redis.call('HEXISTS', key, name) == 0 then return 0 end
redis.call('HSET', key, name, ARGV[3])
redis.call('ZADD', ends, lasts == 0 and '+inf' or text_of(now + lasts), name)
for _, each in ipairs({ key, ends }) do
local left = redis.call('PTTL', each)
if lasts == 0 then
redis.call('PERSIST', each)
elseif size == 0 or (left >= 0 and left < lasts) then
redis.call('PEXPIRE', each, ARGV[5])
end
end
return 1
end
if does == 'take' then
redis.call('ZREM', ends, ARGV[2])
return redis.call('HDEL', key, ARGV[2])
end
if does == 'all' then
while drop_over() do end
return redis.call('HVALS', key)
end
if does == 'trail' then return redis.call('LRANGE', key, 0, -1) end
if does == 'vouch' then
redis.call('ZREMRANGEBYSCORE', key, '-inf', text_of(now))
redis.call('ZADD', key, text_of(now + ARGV[3]), ARGV[2])
for _, oldest in ipairs(redis.call('ZRANGE', key, 0, -1 - ARGV[4])) do redis.call('ZREM', key, oldest) end
redis.call('PEXPIRE', key, ARGV[3])
return 1
end
if does == 'vouchers' then return redis.call('ZRANGEBYSCORE', key, '(' .. text_of(now), '+inf') end
return now`
