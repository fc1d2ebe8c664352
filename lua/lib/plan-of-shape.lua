-- What `decide` reads of a shape. `argument`: where clients share a partition, what tells who asks.
local function plan_of(shape, argument)
  local holders = {}
  for holder in string.gmatch(argument or '', ',(%d+)') do holders[#holders + 1] = tonumber(holder) end
  local keys = shape[1] + (shape[4] ~= 0 and 1 or 0)
  local plan = { 1, keys, 0, shape[2], shape[3], 0 }
  for index = 1, shape[2] do
    local from = HEAD + 1 + (index - 1) * PER_POLICY
    for offset = 0, 11 do plan[7 + (index - 1) * 12 + offset] = 0 end
    local to = 7 + (index - 1) * 12
    plan[to] = shape[from]
    for offset = 1, 6 do plan[to + 1 + offset] = shape[from + offset] end
    plan[to + 9] = holders[index] or 0
    plan[to + 11] = shape[from + 7]
  end
  if shape[4] ~= 0 then
    local key, id, query = unpack(shape[4])
    plan[4] = plan[4] + 1
    for _, number in ipairs({ key, keys, STANDING, id, 1, 1, 1, 0, query, 0, 0, AFTER }) do
      plan[#plan + 1] = number
    end
  end
  local bases = HEAD + 1 + shape[2] * PER_POLICY
  if shape[bases] then
    local to = #plan + 1
    plan[to] = -1
    for index = 0, plan[4] * 2 - 1 do plan[to + 1 + index] = shape[bases + index] end
  end
  return plan
end
