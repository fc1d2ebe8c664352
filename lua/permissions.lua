-- Finds the commands of all scripts that the user may not run: each is run where there is nothing, and changes nothing. What makes a
-- key is run only where it can be removed at once.
--
-- KEYS   a key that is not there.
-- ARGV   none
-- RETURNS the names of those commands; `~` among them where the key may not be used.
-- COMMANDS TIME GET MGET SET EXISTS HMGET UNLINK LINDEX LRANGE LSET RPUSH LREM LTRIM PEXPIRE ZADD ZREM ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE
--          ZREMRANGEBYSCORE HSET XADD XLEN XRANGE XREVRANGE XTRIM HGETALL HDEL HKEYS PTTL SETBIT PERSIST LLEN HEXISTS HLEN HVALS

local key = KEYS[1]
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
return missing
