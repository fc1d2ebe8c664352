-- Takes what answered requests tell of their clients into these clients' standing, and tells what that comes to.
--
-- KEYS   of each client in turn: its standing, the marks of its targets, and, where its events are known by an id, by which ids others
--        were; all with the same hash tag. Of one client alone the standing may be all: then no targets are marked.
-- ARGV   JSON arrays of whole numbers (times in microseconds). The first holds the rules: the half-life, then of each signal its weight,
--        threshold, half-life, which other it needs, and its label (from 1, 0 for none). Then one a client: its ladder, and a list of events:
--        when it was decided, outcome (0 no request, 1 admitted, 2 refused and told a time, 3 refused,
--        4 admitted for nothing), the time told, tag, target,
--        sequence, endpoint, place, software, whether the place is known, result (0 not known, 1 served, 2 not found, 3 forbidden,
--        4 its client left), then places of signals and millionths to add by turns. Then, where only the first events of an id count, the
--        id, for how long it is known (ms), and how many of a client are.
-- RETURNS one flat row of integers. A client: score, step before, step, signals, labels that began, labels that changed; if any changed, of
--        each signal the count in thousandths and since when, and of each label when it began and was last seen.
-- COMMANDS TIME HMGET HSET HKEYS PEXPIRE PTTL SETBIT UNLINK ZADD ZREM ZRANGE ZREMRANGEBYSCORE

--- include lib/decay.lua
--- include lib/conduct.lua

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local given = cjson.decode(ARGV[1])
local half_life, rules = given[1], {}
for index = 2, #given, 5 do
  rules[#rules + 1] = {
    weight = given[index],
    threshold = given[index + 1],
    half_life = given[index + 2],
    needs = given[index + 3],
    label = given[index + 4],
  }
end

-- What people decided lives on as long as it means something: a key that holds any of it is never given less time.
local function live_until(key, last)
  local lives = math.ceil((last - now) / 1000)
  local left = redis.call('PTTL', key)
  if left == -1 then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if field ~= 'b' and field ~= 'v' then return end
    end
  elseif left >= lives then
    return
  end
  redis.call('PEXPIRE', key, string.format('%.0f', lives))
end

-- Whether nothing is known by this id.
local function is_first(key, id, lasts, most)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  if redis.call('ZADD', key, 'NX', string.format('%.0f', now + lasts * 1000), id) == 0 then return false end
  for _, old in ipairs(redis.call('ZRANGE', key, 0, -(most + 1))) do redis.call('ZREM', key, old) end
  redis.call('PEXPIRE', key, string.format('%.0f', lasts))
  return true
end

local answer, key_at = {}, 1
local function tell(number) answer[#answer + 1] = number end

for index = 2, #ARGV do
  local plan = cjson.decode(ARGV[index])
  local ladder = plan[1]
  local key, marks_key = KEYS[key_at], KEYS[key_at + 1]
  key_at = key_at + 2
  local events = plan[2]
  if plan[3] then
    if not is_first(KEYS[key_at], plan[3], plan[4], plan[5]) then events = {} end
    key_at = key_at + 1
  end
  local known = redis.call('HMGET', key, 'b', 'v')
  local conduct = unpack_conduct(known[2], #rules)
  local marked_at, touched = conduct.marked_at, {}
  for _, row in ipairs(events) do
    local event = {
      at = row[1],
      outcome = row[2],
      told = row[3],
      tag = row[4],
      target = row[5],
      sequence = row[6],
      endpoint = row[7],
      place = row[8],
      software = row[9],
      known = row[10],
      result = row[11],
      adds = { unpack(row, 12) },
    }
    observe(conduct, marks_key, event, rules, half_life, now, touched)
  end
  local standing, before, began, changed, values =
    judge(conduct, read_score(known[1]), rules, half_life, ladder, now, touched)
  redis.call(
    'HSET', key,
    'b', pack_standing(standing),
    'v', pack_conduct(conduct)
  )
  local last = remembered_until(conduct, rules, half_life, now)
  live_until(key, last)
  if conduct.marked_at ~= marked_at then
    -- A minute more, so that it is the conduct that says when they are over.
    redis.call('PEXPIRE', marks_key, string.format('%.0f', math.ceil(2 * half_life / 1000) + 60000))
  end
  tell(standing.score)
  tell(before)
  tell(standing.step)
  tell(standing.signals)
  tell(began)
  tell(changed)
  if changed > 0 then
    for signal, count in ipairs(conduct.counts) do
      tell(math.floor(values[signal] / 1000))
      tell(count[3])
    end
    for _, incident in ipairs(conduct.labels) do
      tell(incident[1])
      tell(incident[2])
    end
  end
end
return answer
