-- What all processes share beside clients: a stream of incidents, tables of cases, who uses what well, and the time.
--
-- KEYS   the one that is meant; of a table also the sorted set of when its entries end, with the same hash tag.
-- ARGV   what to do, and what it needs: 'add' to the stream a text, keeping so many, for so long in ms; 'read' the newest of the stream
--        since a time in ms, so many; 'put' in the table a name and a text, if there are fewer than so many, for so long in ms (0 for
--        good); 'take' a name from the table; 'all' of the table; 'trail' of a client, all lines; 'vouch' by somebody, for so long in ms, and
--        how many of them are kept; 'vouchers'; 'time'.
-- RETURNS texts for 'read', 'all', 'trail' and 'vouchers', since people wrote them; the time in ms; an integer for the others.
-- COMMANDS TIME XADD PEXPIRE PTTL PERSIST XREVRANGE HSET HEXISTS HLEN HDEL HVALS LRANGE ZADD ZREM ZRANGE ZRANGEBYSCORE ZREMRANGEBYSCORE

local does, key, ends = ARGV[1], KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text_of(number) return string.format('%.0f', number) end

-- Takes what is over out of the table. True where there may be more of it.
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
  -- The table lives as long as anything in it.
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
return now
