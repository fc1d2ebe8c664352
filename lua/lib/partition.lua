-- A partition's counters share one value: a row of records, one a policy, so that many limits cost one read and one write.
-- A record is its header, <state id: 4 bytes> <expires, in seconds: 5> <length: 2>, and as many bytes as its algorithm packs.

-- Reads the records of a key. Bytes are unpacked only for the policies that a decision opens.
-- value: what it holds, where that is known. `apart`: the key is none of a partition, of which the call needs nothing.
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

-- Writes the records back, those that expired left out, and lets the key live as long as the last of them. A record that was
-- opened and not changed stays as it was: what only time did to it is not for a request to keep that was refused.
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

-- The algorithms a call uses, by their numbers; each file of lib/ adds one. Made when first needed, since making a
-- function costs time in every call.
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

-- Notes that a record is to be written back.
local function keep(partition, record)
  record.changed = true
  partition.dirty = true
end

-- Makes a policy's record ready for use: its state, mended for the clock and for limits that have changed.
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

-- Reads a policy's entry, of twelve, from a plan. `extra` holds its members, or its calendar. `correcting`: of an earlier charge,
-- whose limit is not the one in force any more.
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
