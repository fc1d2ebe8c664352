-- Puts one process's value on a board that all processes share, and reads what is on it. Nobody cleans up: an entry is dropped by
-- whoever posts after it has expired, and the board goes with its last one.
--
-- KEYS   the board: a hash of entries, each `<expiry in microseconds> <value>`.
-- ARGV   the entry, its value (a whole number), for how many ms it lives (0 takes it off), how many entries a board holds.
-- RETURNS the values of all entries that live, integers. An entry that finds the board full is not put on it.
-- COMMANDS TIME HGETALL HSET HDEL PEXPIRE

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local entry, value, ttl, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('HGETALL', KEYS[1])
local values, gone, last = {}, {}, 0
for index = 1, #stored, 2 do
  local until_us, posted = string.match(stored[index + 1], '^(%d+) (%-?%d+)$')
  until_us = tonumber(until_us)
  -- Further ahead than anybody posts: the clock was set back.
  if stored[index] == entry or not until_us or until_us <= now or until_us > now + 86400000000 then
    gone[#gone + 1] = stored[index]
  else
    values[#values + 1] = tonumber(posted)
    last = math.max(last, until_us)
  end
end
-- Ten at a time, far below what one call takes.
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
return values
