-- Corrects charges that were made, whether there is room or not: down gives back, up may leave a debt.
--
-- KEYS   the keys its plan counts on: partitions, and the lists of their sliding logs.
-- ARGV   a flat JSON array of whole numbers: how many entries, then nine numbers each: key, key of the log (or 0), kind, state
--        id, window, quota, capacity, by how much (negative gives back), and when it was charged.
-- RETURNS how many entries were corrected, an integer.
-- COMMANDS TIME GET SET UNLINK LINDEX LRANGE LSET RPUSH LREM LTRIM PEXPIRE

--- include lib/partition.lua
--- include lib/token-bucket.lua
--- include lib/sliding-window.lua
--- include lib/sliding-log.lua
--- include lib/fixed-window.lua
--- include lib/first-minutes.lua

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local partitions = {}
for index = 1, plan[1] do
  local entry = read_entry(plan, index * 9 - 7, 0, true, true)
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
  keep(partition, record)
end
for _, partition in pairs(partitions) do save_partition(partition, now) end
return plan[1]
