-- Decides requests: for each, either every policy admits and every one is charged, or none is.
--
-- KEYS   of each decision in turn: the keys it counts on: partitions, and what logs, leases and targets have of their own, which
--        carries the same hash tag.
-- ARGV   first the shapes, a JSON array of arrays, as lib/plain.lua says; then the decisions. Of those in a row that have the same
--        shape: its number, from 1, a star, and how many they are. Of one whose clients share a partition: the number of its shape
--        and, after a comma each, a hash of who asks, for each policy (or 0). Of another a plan, a JSON array, of whole numbers but for members (times in microseconds):
--        commit (1; 0 looks and changes nothing), how many keys, how many entries to undo, how many to charge, from when and until when
--        a promise is to be made for one that others refused (0 and 0: decide, and promise what is told; -1: decide, and promise
--        nothing), then the entries, twelve each: key (0 where the whole call keeps no record in a partition), own key (or 0), kind, state id, window, quota, capacity, cost, extra (0, or an array of
--        members, or a calendar: spread, origin, first day of months), and
--        at an undo: when it was charged, which members were new, 0;
--        at a charge: a hash of who asks where clients share the partition (or 0), 1 if it is for slots that come back by their leases alone, and the sum of 1 if the first minutes' extra may stand in for it, 2 if it only watches (shadow),
--        4 if it is charged afterwards and only needs room for one to start, and of a pool that tiers share, 8 for the tier's own
--        part, then 16 for the common part, then 24 for the demand for it, whose extra is seats, seat, seats that go first. A client's
--        standing is the last of them.
--        Where tickets are asked for, six more behind the entries: the share of a quota that may be reserved (a fraction), how far
--        ahead, the id of what may be reserved, a hash of the client, and of the ticket that was shown id (or 0) and slot.
--        Where quotas are cut, behind those six (or a -1 in their stead), for each charge: its quota and capacity without the cut.
-- RETURNS one flat row of whole numbers, packed as doubles of 8 bytes, little-endian, which costs a client less than as many integers;
--        where decisions failed, an array: the row, and then why, a text for each. The row: the time, then of each decision in turn:
--        2, admitted by its shape, by a client without a standing; then for each charge but that: remaining (-1: the first minutes are over), wait until as much fits again
--        (-1 never), time until nothing used counts any more;
--        or 1 (admitted), 0 (refused) or 3 (only the cut refused), the wait until the same is admitted (0 when it was, -1 when never); then for each charge: verdict
--        (0 refused, 1 fits, 2 lifted, 3 inactive, 4 spared), remaining, wait, time, which members were new. Where tickets are
--        asked for, two more: what became of the one shown (0 none, 1 redeemed, 2 early, 3 kept, 4 lapsed, 5 used), and the slot that
--        was reserved (or 0);
--        or -1, it failed and charged nothing.
-- COMMANDS TIME GET MGET SET EXISTS HMGET UNLINK LINDEX LRANGE LSET RPUSH LREM LTRIM PEXPIRE ZADD ZREM ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE
--          ZREMRANGEBYSCORE HSET XADD XLEN XRANGE XREVRANGE XTRIM

local SCHEDULE_ID = 1548668958

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local shapes = cjson.decode(ARGV[1])
local answer = { now }

--- include lib/plain.lua

-- All that is not plain. Made when first needed, since making a function costs time in every call.
local function make_decide()
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
  --- include lib/decay.lua
  --- include lib/standing.lua
  --- include lib/credits.lua
  --- include lib/schedule.lua
  --- include lib/reservations.lua

  --- include lib/together.lua
  --- include lib/plan-of-shape.lua
  return decide, plan_of
end

-- What the decisions are, in a row: of each its shape and who asks, or else its plan; and where the keys of the next begin.
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

-- What the plain ones need is read at once, since each command costs more than what it reads: the partitions, and whether any client
-- has a standing at all.
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
    -- Most clients have no standing: nothing was noted of them, and nobody decided anything.
    local stands = shape[4] ~= 0 and not nobody_stands and redis.call('EXISTS', KEYS[bases[index + 1]]) == 1
    if not stands and decide_plainly(shape, bases[index], size) then return end
    clear(size + 1, shape)
  end
  if not decide then decide, plan_of = make_decide() end
  decide(shape and plan_of(shape, holders[index]) or plans[index], bases[index], now, answer)
  held, nobody_stands = {}, false
end

-- One that fails leaves the others alone.
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
return #failures == 0 and row or { row, unpack(failures) }
