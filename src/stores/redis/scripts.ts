// Generated from lua/ by scripts/embed-lua.mjs (npm run embed). Do not edit.

/** lua/decide.lua. Calls TIME, GET, SET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE, ZADD, ZREM, ZCOUNT, ZMSCORE, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE. */
export const decideScript: string = `local function load_partition(key)
local partition = { key = key, order = {}, records = {}, stored = redis.call('GET', key) }
local value = partition.stored
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
return {
commit = commit,
correcting = correcting,
key = KEYS[base + plan[from]],
own_key = KEYS[base + plan[from + 1]],
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
local entries = #stored / 12
state = { struct.unpack('<' .. string.rep('I7I5', entries), stored) }
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
expires = expires,
pack = function(state, limit, now)
return struct.pack('<' .. string.rep('I7I5', #state / 2), unpack(state)), expires(state, limit, now)
end,
}
end
define[3] = function()
local chunk, most_count = 32, 1099511627775
local function entry_at(bytes)
return struct.unpack('<I7I5', bytes)
end
local function newest_of(state)
local bytes = redis.call('LINDEX', state.key, -1)
if bytes then return (entry_at(bytes)) end
return 0
end
local function walk(state, visit)
local from = state.gone
while true do
local entries = redis.call('LRANGE', state.key, from, from + chunk - 1)
for index = 1, #entries do
local at, count = entry_at(entries[index])
if state.future and at > state.future then at = state.future end
local found = visit(at, count)
if found then return found end
end
if #entries < chunk then return nil end
from = from + chunk
end
end
local function mend_future(state, limit, now)
state.future = now
state.newest = now
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
local live = walk(state, function(at, count)
if at + limit.window > now then return true end
state.gone = state.gone + 1
state.total = state.total - count
state.mended = true
end)
if not live then
fresh.mended = true
return fresh
end
return state
end,
earliest = function(state, limit, now, cost)
local excess = state.total + cost - limit.quota
if excess <= 0 then return now end
return walk(state, function(at, count)
excess = excess - count
if excess <= 0 then return at + limit.window end
end) or now
end,
remaining = function(state, limit)
return math.max(0, limit.quota - state.total)
end,
charge = function(state, limit, now, cost)
if state.fresh then redis.call('UNLINK', state.key) end
state.fresh = nil
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
local index = state.gone - 1
local emptied = 0
walk(state, function(at, count)
if cost == 0 then return true end
index = index + 1
if at < charged_at then return nil end
local given = math.min(count, cost)
cost = cost - given
state.total = state.total - given
if given == count then
emptied = emptied + 1
redis.call('LSET', state.key, index, '')
else
redis.call('LSET', state.key, index, struct.pack('<I7I5', at, count - given))
end
end)
if emptied > 0 then
redis.call('LREM', state.key, emptied, '')
state.newest = newest_of(state)
end
end,
expires = expires,
pack = function(state, limit, now)
if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
state.gone = 0
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
state = { held = 0, held_at = 0 }
elseif type(stored) == 'string' then
local held, held_at = struct.unpack('<dd', stored)
state = { held = held, held_at = held_at }
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
if state.held > 0 and (state.held_at + limit.window <= now or state.held_at > now + limit.window) then
state.held, state.held_at = 0, 0
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
return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held))))
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
state.held_at = now
end,
renew = add,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
if state.held > 0 then ends = math.max(ends, state.held_at + limit.window) end
return struct.pack('<dd', state.held, state.held_at), ends
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
local FIRST_MINUTES = 5
local LIFTABLE, SHADOW, AFTER = 1, 2, 4
local OWN, COMMON, DEMAND = 8, 16, 24
local REFUSED, FITS, LIFTED, INACTIVE, SPARED = 0, 1, 2, 3, 4
local SECOND = 1000000
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
if noted and not (entry.after and admitted) then
entry.record.algorithm.note(entry.record.state, entry, entry.cost)
keep(entry.partition, entry.record)
end
end
end
local wait = 0
if not admitted then
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
return answer`

/** lua/settle.lua. Calls TIME, GET, SET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE, ZADD, ZREM, ZCOUNT, ZMSCORE, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE. */
export const settleScript: string = `local function load_partition(key)
local partition = { key = key, order = {}, records = {}, stored = redis.call('GET', key) }
local value = partition.stored
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
return {
commit = commit,
correcting = correcting,
key = KEYS[base + plan[from]],
own_key = KEYS[base + plan[from + 1]],
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
local entries = #stored / 12
state = { struct.unpack('<' .. string.rep('I7I5', entries), stored) }
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
expires = expires,
pack = function(state, limit, now)
return struct.pack('<' .. string.rep('I7I5', #state / 2), unpack(state)), expires(state, limit, now)
end,
}
end
define[3] = function()
local chunk, most_count = 32, 1099511627775
local function entry_at(bytes)
return struct.unpack('<I7I5', bytes)
end
local function newest_of(state)
local bytes = redis.call('LINDEX', state.key, -1)
if bytes then return (entry_at(bytes)) end
return 0
end
local function walk(state, visit)
local from = state.gone
while true do
local entries = redis.call('LRANGE', state.key, from, from + chunk - 1)
for index = 1, #entries do
local at, count = entry_at(entries[index])
if state.future and at > state.future then at = state.future end
local found = visit(at, count)
if found then return found end
end
if #entries < chunk then return nil end
from = from + chunk
end
end
local function mend_future(state, limit, now)
state.future = now
state.newest = now
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
local live = walk(state, function(at, count)
if at + limit.window > now then return true end
state.gone = state.gone + 1
state.total = state.total - count
state.mended = true
end)
if not live then
fresh.mended = true
return fresh
end
return state
end,
earliest = function(state, limit, now, cost)
local excess = state.total + cost - limit.quota
if excess <= 0 then return now end
return walk(state, function(at, count)
excess = excess - count
if excess <= 0 then return at + limit.window end
end) or now
end,
remaining = function(state, limit)
return math.max(0, limit.quota - state.total)
end,
charge = function(state, limit, now, cost)
if state.fresh then redis.call('UNLINK', state.key) end
state.fresh = nil
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
local index = state.gone - 1
local emptied = 0
walk(state, function(at, count)
if cost == 0 then return true end
index = index + 1
if at < charged_at then return nil end
local given = math.min(count, cost)
cost = cost - given
state.total = state.total - given
if given == count then
emptied = emptied + 1
redis.call('LSET', state.key, index, '')
else
redis.call('LSET', state.key, index, struct.pack('<I7I5', at, count - given))
end
end)
if emptied > 0 then
redis.call('LREM', state.key, emptied, '')
state.newest = newest_of(state)
end
end,
expires = expires,
pack = function(state, limit, now)
if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
state.gone = 0
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
state = { held = 0, held_at = 0 }
elseif type(stored) == 'string' then
local held, held_at = struct.unpack('<dd', stored)
state = { held = held, held_at = held_at }
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
if state.held > 0 and (state.held_at + limit.window <= now or state.held_at > now + limit.window) then
state.held, state.held_at = 0, 0
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
return math.min(expiry, now + math.max(1000, math.ceil(hold * excess / math.max(1, held))))
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
state.held_at = now
end,
renew = add,
expires = expires,
pack = function(state, limit, now)
local ends = expires(state, limit, now)
if ends > now then
local second = math.ceil(ends / 1000000)
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((second * 1000000 - now) / 1000)))
end
if state.held > 0 then ends = math.max(ends, state.held_at + limit.window) end
return struct.pack('<dd', state.held, state.held_at), ends
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
local RELEASE, RENEW = 1, 2
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local partitions = {}
for index = 1, plan[1] do
local entry = read_entry(plan, index * 12 - 10, 0, true, true)
local partition = partitions[entry.key]
if not partition then
partition = load_partition(entry.key)
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
