-- Writes what people decided about a client beside its score, with a line in its audit trail; or reads it.
--
-- KEYS   the client's standing, its audit trail, the marks of its targets; all with the same hash tag.
-- ARGV   a JSON array: how many fields to write, then their names and values, how many to take away, then their names, and a line
--        for the audit trail ('' for none). Then how many lines may be kept.
-- RETURNS what is then known, by turns the names of fields and what they hold, all but the packed ones (texts, since people wrote
--        them); and how many lines the trail has, last.
-- COMMANDS TIME HSET HDEL HGETALL PERSIST PEXPIRE PTTL RPUSH LTRIM LLEN UNLINK

local plan = cjson.decode(ARGV[1])
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

-- It lives as long as anything in it means something. Scores are given a day.
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
return answer
