-- Corrects charges that were made, whether there is room or not: down gives back, up may leave a debt. Releases and renews leases.
--
-- KEYS   the keys its plan counts on: partitions, and what logs, leases and targets have of their own.
-- ARGV   a JSON array: how many entries, then twelve each, as in decide.lua: key (or 0), own key (or 0), kind, state id, window, quota,
--        capacity, by how much (negative gives back), extra, when it was charged, which members were new, and
--        0 to correct, 1 to release, 2 to renew.
-- RETURNS how many entries were corrected, an integer.
-- COMMANDS TIME GET SET UNLINK LINDEX LRANGE LSET RPUSH LREM LTRIM PEXPIRE ZADD ZREM ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE
--          ZREMRANGEBYSCORE EXISTS HMGET HSET XADD XLEN XRANGE XREVRANGE XTRIM

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
--- include lib/single-use.lua
--- include lib/credits.lua

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
return plan[1]
