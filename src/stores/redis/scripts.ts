// Generated from lua/ by scripts/embed-lua.mjs (npm run embed). Do not edit.

/** lua/decide.lua. Calls TIME, GET, SET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE. */
export const decideScript: string = `local function load_partition(key)
local partition = { key = key, order = {}, records = {}, stored = redis.call('GET', key) }
local value = partition.stored
if value then
local from, size = 1, #value
while from + 9 <= size do
local id, expires, length = struct.unpack('<I4I4I2', value, from)
partition.order[#partition.order + 1] = id
partition.records[id] = { expires = expires * 1000000, bytes = string.sub(value, from + 10, from + 9 + length) }
from = from + 10 + length
end
end
return partition
end
local function save_partition(partition, now)
local parts, expires = {}, 0
for _, id in ipairs(partition.order) do
local record = partition.records[id]
if record.state then
record.bytes, record.expires = record.algorithm.pack(record.state, record.limit, now)
end
if record.expires > now then
if record.expires > expires then expires = record.expires end
parts[#parts + 1] = struct.pack('<I4I4I2', id, math.ceil(record.expires / 1000000), #record.bytes) .. record.bytes
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
if record.state.mended then partition.dirty = true end
return record
end
local function read_entry(plan, from, base, commit)
return {
commit = commit,
key = KEYS[base + plan[from]],
log_key = KEYS[base + plan[from + 1]],
kind = plan[from + 2],
id = plan[from + 3],
window = plan[from + 4],
quota = plan[from + 5],
capacity = plan[from + 6],
cost = plan[from + 7],
last = plan[from + 8],
}
end
define[1] = function()
local function deficit_at(state, quota, time)
local elapsed = time - state.at
if elapsed < 0 then elapsed = 0 end
local deficit = state.deficit - math.floor(elapsed * quota / state.scale)
if deficit < 0 then return 0 end
return deficit
end
local function weigh(state, limit, cost)
return math.ceil(cost * limit.window / state.scale)
end
local function room(state, limit)
return math.floor(limit.capacity * limit.window / state.scale)
end
return {
open = function(stored, limit, now)
local scale = 1
while limit.capacity * limit.window / scale > 562949953421312 do scale = scale * 10 end
if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale } end
local state = stored
if type(stored) == 'string' then
local deficit, at, quota, power = struct.unpack('<dddB', stored)
state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
end
if state.at > now + limit.window then
state.at = now
state.mended = true
end
if deficit_at(state, state.quota, now) == 0 then
state.deficit = 0
state.at = math.max(state.at, now)
end
if state.quota ~= limit.quota then
state.deficit = deficit_at(state, math.min(state.quota, limit.quota), now)
state.at = math.max(state.at, now)
state.quota = limit.quota
state.mended = true
end
if state.scale ~= scale then
state.deficit = math.ceil(state.deficit * state.scale / scale)
state.scale = scale
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
local spare = room(state, limit) - weigh(state, limit, cost)
if deficit_at(state, limit.quota, now) <= spare then return now end
local time = state.at + math.ceil((state.deficit - spare) * state.scale / limit.quota)
while deficit_at(state, limit.quota, time) > spare do time = time + 1 end
return time
end,
remaining = function(state, limit, now)
local spare = room(state, limit) - deficit_at(state, limit.quota, now)
return math.max(0, math.floor(spare * state.scale / limit.window))
end,
charge = function(state, limit, now, cost)
state.deficit = math.min(9007199254740991, deficit_at(state, limit.quota, now) + weigh(state, limit, cost))
state.at = math.max(state.at, now)
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
state.deficit = math.max(0, deficit_at(state, limit.quota, now) - weigh(state, limit, cost))
state.at = math.max(state.at, now)
end,
expires = function(state, limit)
if limit.quota == 0 then return state.at + limit.window end
return state.at + math.ceil(state.deficit * state.scale / limit.quota)
end,
pack = function(state, limit)
local expires = state.at + limit.window
if limit.quota > 0 then expires = state.at + math.ceil(state.deficit * state.scale / limit.quota) end
local power = math.floor(math.log10(state.scale) + 0.5)
return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires
end,
}
end
define[2] = function()
local most_entries = 16
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
state[index + 1] = state[index + 1] + state[index - 1]
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
state[size] = state[size] + cost
else
state[size + 1] = now
state[size + 2] = cost
if size + 2 > most_entries * 2 then merge_newest(state, limit.window) end
end
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
for index = 1, #state, 2 do
if state[index] >= charged_at then
state[index + 1] = state[index + 1] - math.min(state[index + 1], cost)
if state[index + 1] == 0 then drop(state, index) end
return
end
end
end,
expires = expires,
pack = function(state, limit, now)
return struct.pack('<' .. string.rep('I7I5', #state / 2), unpack(state)), expires(state, limit, now)
end,
}
end
define[3] = function()
local chunk = 32
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
state = { total = 0, newest = 0, gone = 0, key = limit.log_key, fresh = true }
elseif type(stored) == 'string' then
local total, newest = struct.unpack('<dI7', stored)
state = { total = total, newest = newest, gone = 0, key = limit.log_key }
end
if state.total == 0 then return state end
if state.newest + limit.window <= now then
return { total = 0, newest = 0, gone = 0, key = limit.log_key, fresh = true }
end
if state.newest > now + limit.window then mend_future(state, limit, now) end
walk(state, function(at, count)
if at + limit.window > now then return true end
state.gone = state.gone + 1
state.total = state.total - count
state.mended = true
end)
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
redis.call('LSET', state.key, -1, struct.pack('<I7I5', at, count + cost))
else
redis.call('RPUSH', state.key, struct.pack('<I7I5', now, cost))
state.newest = now
end
state.total = state.total + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
local index = state.gone - 1
local found = walk(state, function(at, count)
index = index + 1
if at >= charged_at then return { at, count } end
end)
if not found then return end
local given = math.min(found[2], cost)
if given == found[2] then
redis.call('LSET', state.key, index, '')
redis.call('LREM', state.key, 1, '')
state.newest = newest_of(state)
else
redis.call('LSET', state.key, index, struct.pack('<I7I5', found[1], found[2] - given))
end
state.total = state.total - given
end,
expires = expires,
pack = function(state, limit, now)
if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
state.gone = 0
local ends = expires(state, limit, now)
if ends > now then
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((ends - now) / 1000)))
end
return struct.pack('<dI7', state.total, state.newest), ends
end,
}
end
define[4] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used }
end
if not state or state.start + limit.window <= now then return { start = now, used = 0 } end
if state.start > now + limit.window then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if state.used + cost <= limit.quota then return now end
return state.start + limit.window
end,
remaining = function(state, limit)
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
if state.used == 0 then state.start = math.max(state.start, now) end
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit, now)
if state.used == 0 then return now end
return state.start + limit.window
end,
pack = function(state, limit, now)
local expires = now
if state.used > 0 then expires = state.start + limit.window end
return struct.pack('<dd', state.start, state.used), expires
end,
}
end
define[5] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used }
end
if not state or state.start + limit.capacity <= now then return { start = now, used = 0, ungranted = true } end
if state.start > now + limit.capacity then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if now < state.start + limit.window and state.used + cost <= limit.quota then return now end
return state.start + limit.capacity
end,
remaining = function(state, limit, now)
if now >= state.start + limit.window then return 0 end
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit)
return state.start + limit.capacity
end,
pack = function(state, limit, now)
if state.ungranted then return '', now end
return struct.pack('<dd', state.start, state.used), state.start + limit.capacity
end,
}
end
local FIRST_MINUTES = 5
local LIFTABLE, SHADOW = 1, 2
local REFUSED, FITS, LIFTED, INACTIVE = 0, 1, 2, 3
local SECOND = 1000000
local function wait_for(record, limit, now, cost)
if cost > limit.capacity then return -1 end
return record.algorithm.earliest(record.state, limit, now, cost) - now
end
local function longer(one, other)
if one < 0 or other < 0 then return -1 end
return math.max(one, other)
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
local entry = read_entry(plan, from, base, commit)
local record, partition = open(entry)
record.algorithm.refund(record.state, entry, now, entry.last, entry.cost)
partition.dirty = true
from = from + 9
end
local entries, extra = {}, nil
local hard_wait, lifted_wait, hard, soft = 0, 0, false, false
for index = 1, charges do
local entry = read_entry(plan, from, base, commit)
entry.record, entry.partition = open(entry)
entries[index] = entry
if entry.kind == FIRST_MINUTES then
extra = entry
else
entry.wait = 0
if entry.cost > 0 then entry.wait = wait_for(entry.record, entry, now, entry.cost) end
if entry.last < SHADOW then
if entry.last == LIFTABLE then
lifted_wait = longer(lifted_wait, entry.wait)
soft = soft or entry.wait ~= 0
else
hard_wait = longer(hard_wait, entry.wait)
hard = hard or entry.wait ~= 0
end
end
end
from = from + 9
end
local lifts, extra_ends = false, 0
if extra then
extra_ends = extra.record.state.start + extra.window
lifts = now < extra_ends and extra.record.state.used + extra.cost <= extra.quota
end
local admitted = not hard and (not soft or lifts)
local wait = 0
if not admitted then
wait = longer(hard_wait, lifted_wait)
if lifts and hard_wait >= 0 and now + hard_wait + SECOND < extra_ends then wait = hard_wait end
elseif commit then
for index = 1, charges do
local entry = entries[index]
if entry == extra then
extra.record.state.ungranted = nil
if soft then extra.record.algorithm.charge(extra.record.state, extra, now, extra.cost) end
entry.partition.dirty = true
elseif entry.wait == 0 and entry.cost > 0 then
entry.record.algorithm.charge(entry.record.state, entry, now, entry.cost)
entry.partition.dirty = true
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
elseif entry.wait ~= 0 then
verdict = (lifts and entry.last == LIFTABLE) and LIFTED or REFUSED
end
answer[size + 1] = verdict
answer[size + 2] = algorithm.remaining(state, entry, now)
answer[size + 3] = wait_for(entry.record, entry, now, math.max(entry.cost, 1))
answer[size + 4] = math.max(0, algorithm.expires(state, entry, now) - now)
size = size + 4
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

/** lua/settle.lua. Calls TIME, GET, SET, UNLINK, LINDEX, LRANGE, LSET, RPUSH, LREM, LTRIM, PEXPIRE. */
export const settleScript: string = `local function load_partition(key)
local partition = { key = key, order = {}, records = {}, stored = redis.call('GET', key) }
local value = partition.stored
if value then
local from, size = 1, #value
while from + 9 <= size do
local id, expires, length = struct.unpack('<I4I4I2', value, from)
partition.order[#partition.order + 1] = id
partition.records[id] = { expires = expires * 1000000, bytes = string.sub(value, from + 10, from + 9 + length) }
from = from + 10 + length
end
end
return partition
end
local function save_partition(partition, now)
local parts, expires = {}, 0
for _, id in ipairs(partition.order) do
local record = partition.records[id]
if record.state then
record.bytes, record.expires = record.algorithm.pack(record.state, record.limit, now)
end
if record.expires > now then
if record.expires > expires then expires = record.expires end
parts[#parts + 1] = struct.pack('<I4I4I2', id, math.ceil(record.expires / 1000000), #record.bytes) .. record.bytes
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
if record.state.mended then partition.dirty = true end
return record
end
local function read_entry(plan, from, base, commit)
return {
commit = commit,
key = KEYS[base + plan[from]],
log_key = KEYS[base + plan[from + 1]],
kind = plan[from + 2],
id = plan[from + 3],
window = plan[from + 4],
quota = plan[from + 5],
capacity = plan[from + 6],
cost = plan[from + 7],
last = plan[from + 8],
}
end
define[1] = function()
local function deficit_at(state, quota, time)
local elapsed = time - state.at
if elapsed < 0 then elapsed = 0 end
local deficit = state.deficit - math.floor(elapsed * quota / state.scale)
if deficit < 0 then return 0 end
return deficit
end
local function weigh(state, limit, cost)
return math.ceil(cost * limit.window / state.scale)
end
local function room(state, limit)
return math.floor(limit.capacity * limit.window / state.scale)
end
return {
open = function(stored, limit, now)
local scale = 1
while limit.capacity * limit.window / scale > 562949953421312 do scale = scale * 10 end
if not stored then return { deficit = 0, at = now, quota = limit.quota, scale = scale } end
local state = stored
if type(stored) == 'string' then
local deficit, at, quota, power = struct.unpack('<dddB', stored)
state = { deficit = deficit, at = at, quota = quota, scale = 10 ^ power }
end
if state.at > now + limit.window then
state.at = now
state.mended = true
end
if deficit_at(state, state.quota, now) == 0 then
state.deficit = 0
state.at = math.max(state.at, now)
end
if state.quota ~= limit.quota then
state.deficit = deficit_at(state, math.min(state.quota, limit.quota), now)
state.at = math.max(state.at, now)
state.quota = limit.quota
state.mended = true
end
if state.scale ~= scale then
state.deficit = math.ceil(state.deficit * state.scale / scale)
state.scale = scale
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
local spare = room(state, limit) - weigh(state, limit, cost)
if deficit_at(state, limit.quota, now) <= spare then return now end
local time = state.at + math.ceil((state.deficit - spare) * state.scale / limit.quota)
while deficit_at(state, limit.quota, time) > spare do time = time + 1 end
return time
end,
remaining = function(state, limit, now)
local spare = room(state, limit) - deficit_at(state, limit.quota, now)
return math.max(0, math.floor(spare * state.scale / limit.window))
end,
charge = function(state, limit, now, cost)
state.deficit = math.min(9007199254740991, deficit_at(state, limit.quota, now) + weigh(state, limit, cost))
state.at = math.max(state.at, now)
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
state.deficit = math.max(0, deficit_at(state, limit.quota, now) - weigh(state, limit, cost))
state.at = math.max(state.at, now)
end,
expires = function(state, limit)
if limit.quota == 0 then return state.at + limit.window end
return state.at + math.ceil(state.deficit * state.scale / limit.quota)
end,
pack = function(state, limit)
local expires = state.at + limit.window
if limit.quota > 0 then expires = state.at + math.ceil(state.deficit * state.scale / limit.quota) end
local power = math.floor(math.log10(state.scale) + 0.5)
return struct.pack('<dddB', state.deficit, state.at, state.quota, power), expires
end,
}
end
define[2] = function()
local most_entries = 16
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
state[index + 1] = state[index + 1] + state[index - 1]
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
state[size] = state[size] + cost
else
state[size + 1] = now
state[size + 2] = cost
if size + 2 > most_entries * 2 then merge_newest(state, limit.window) end
end
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
for index = 1, #state, 2 do
if state[index] >= charged_at then
state[index + 1] = state[index + 1] - math.min(state[index + 1], cost)
if state[index + 1] == 0 then drop(state, index) end
return
end
end
end,
expires = expires,
pack = function(state, limit, now)
return struct.pack('<' .. string.rep('I7I5', #state / 2), unpack(state)), expires(state, limit, now)
end,
}
end
define[3] = function()
local chunk = 32
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
state = { total = 0, newest = 0, gone = 0, key = limit.log_key, fresh = true }
elseif type(stored) == 'string' then
local total, newest = struct.unpack('<dI7', stored)
state = { total = total, newest = newest, gone = 0, key = limit.log_key }
end
if state.total == 0 then return state end
if state.newest + limit.window <= now then
return { total = 0, newest = 0, gone = 0, key = limit.log_key, fresh = true }
end
if state.newest > now + limit.window then mend_future(state, limit, now) end
walk(state, function(at, count)
if at + limit.window > now then return true end
state.gone = state.gone + 1
state.total = state.total - count
state.mended = true
end)
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
redis.call('LSET', state.key, -1, struct.pack('<I7I5', at, count + cost))
else
redis.call('RPUSH', state.key, struct.pack('<I7I5', now, cost))
state.newest = now
end
state.total = state.total + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at + limit.window <= now then return end
local index = state.gone - 1
local found = walk(state, function(at, count)
index = index + 1
if at >= charged_at then return { at, count } end
end)
if not found then return end
local given = math.min(found[2], cost)
if given == found[2] then
redis.call('LSET', state.key, index, '')
redis.call('LREM', state.key, 1, '')
state.newest = newest_of(state)
else
redis.call('LSET', state.key, index, struct.pack('<I7I5', found[1], found[2] - given))
end
state.total = state.total - given
end,
expires = expires,
pack = function(state, limit, now)
if state.gone > 0 then redis.call('LTRIM', state.key, state.gone, -1) end
state.gone = 0
local ends = expires(state, limit, now)
if ends > now then
redis.call('PEXPIRE', state.key, string.format('%.0f', math.ceil((ends - now) / 1000)))
end
return struct.pack('<dI7', state.total, state.newest), ends
end,
}
end
define[4] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used }
end
if not state or state.start + limit.window <= now then return { start = now, used = 0 } end
if state.start > now + limit.window then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if state.used + cost <= limit.quota then return now end
return state.start + limit.window
end,
remaining = function(state, limit)
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
if state.used == 0 then state.start = math.max(state.start, now) end
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit, now)
if state.used == 0 then return now end
return state.start + limit.window
end,
pack = function(state, limit, now)
local expires = now
if state.used > 0 then expires = state.start + limit.window end
return struct.pack('<dd', state.start, state.used), expires
end,
}
end
define[5] = function()
return {
open = function(stored, limit, now)
local state = stored
if type(stored) == 'string' then
local start, used = struct.unpack('<dd', stored)
state = { start = start, used = used }
end
if not state or state.start + limit.capacity <= now then return { start = now, used = 0, ungranted = true } end
if state.start > now + limit.capacity then
state.start = now
state.mended = true
end
return state
end,
earliest = function(state, limit, now, cost)
if now < state.start + limit.window and state.used + cost <= limit.quota then return now end
return state.start + limit.capacity
end,
remaining = function(state, limit, now)
if now >= state.start + limit.window then return 0 end
return math.max(0, limit.quota - state.used)
end,
charge = function(state, limit, now, cost)
state.used = state.used + cost
end,
refund = function(state, limit, now, charged_at, cost)
if charged_at < state.start or charged_at + limit.window <= now then return end
state.used = state.used - math.min(state.used, cost)
end,
expires = function(state, limit)
return state.start + limit.capacity
end,
pack = function(state, limit, now)
if state.ungranted then return '', now end
return struct.pack('<dd', state.start, state.used), state.start + limit.capacity
end,
}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local partitions = {}
for index = 1, plan[1] do
local entry = read_entry(plan, index * 9 - 7, 0, true)
local partition = partitions[entry.key]
if not partition then
partition = load_partition(entry.key)
partitions[entry.key] = partition
end
local record = open_record(partition, entry, now)
if entry.cost < 0 then
record.algorithm.refund(record.state, entry, now, entry.last, -entry.cost)
elseif entry.cost > 0 then
record.algorithm.charge(record.state, entry, now, entry.cost)
end
partition.dirty = true
end
for _, partition in pairs(partitions) do save_partition(partition, now) end
return plan[1]`
