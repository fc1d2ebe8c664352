-- The twin of the first half of src/policies/standing.ts: scores that decay, and where they stand on a ladder.

-- 2^-(1/2), 2^-(1/4), … 2^-(1/256), times 2^16.
local decay_factors = { 46341, 55109, 60097, 62757, 64132, 64830, 65182, 65359 }
local LONGEST_STEP = 2 * 3600000000

local function decayed(value, from, now, half_life)
  if value == 0 or from - now > half_life then return 0 end
  local tick = math.max(1, math.floor(half_life / 256))
  local ticks = math.floor(now / tick) - math.floor(from / tick)
  if ticks <= 0 then return value end
  local halves = math.floor(ticks / 256)
  if halves >= 40 then return 0 end
  local rest, bit = ticks - halves * 256, 128
  for _, factor in ipairs(decay_factors) do
    if rest >= bit then
      rest = rest - bit
      value = math.floor(value * factor / 65536)
    end
    bit = bit / 2
  end
  return math.floor(value / 2 ^ halves)
end

-- A ladder is from `first` on in a list: above and below, of four steps.
local function step_down(ladder, first, before, score)
  local step = before
  while step > 0 and score < ladder[first + 2 * step - 1] do step = step - 1 end
  return step
end

local function step_on(ladder, first, before, score)
  local step = step_down(ladder, first, before, score)
  for higher = 4, step + 1, -1 do
    if score >= ladder[first + 2 * higher - 2] and higher > step then step = higher end
  end
  return step
end

local function read_score(bytes)
  if not bytes then return nil end
  local score, at, offence, signals, next_at = struct.unpack('<I4I7I7I4', bytes)
  local steps = {}
  while next_at + 8 <= #bytes do
    local name, step, lowest
    name, step, lowest, next_at = struct.unpack('<I4I1I4', bytes, next_at)
    steps[#steps + 1] = { name, step, lowest }
  end
  return { score = score, steps = steps, at = at, offence = offence, signals = signals }
end

local function name_of(ladder, first)
  local name = 0
  for index = first, first + 7 do name = (name * 69069 + ladder[index]) % 2 ^ 32 end
  return name
end

local function is_over(standing, now) return math.abs(now - standing.offence) > LONGEST_STEP end

local function score_now(standing, ladder, first, half_life, now)
  if not standing or half_life == 0 then return 0, 0 end
  local score = decayed(standing.score, standing.at, now, half_life)
  if is_over(standing, now) then return score, 0 end
  local before, name = 0, #standing.steps > 0 and name_of(ladder, first)
  for _, known in ipairs(standing.steps) do
    if known[1] == name then before = step_down(ladder, first, known[2], known[3]) end
  end
  return score, step_on(ladder, first, before, score)
end
