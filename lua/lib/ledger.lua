-- The twin of src/stores/ledger.ts: what happens to an account's credits. An account is a hash of five totals, and beside it, with
-- its key and the same hash tag: `:s` the stream of its movements, `:h` what is held by when it falls back, `:k` the sum of the
-- movements that were trimmed, `:c:<id>` a charge or hold, `:i:<hash>` an idempotency key, `:p:<hash>` a purchase: a hash of the
-- credits it gave, what has been taken back of them in all, and by whom; and what was asked for before it was told.
--
-- Granted is available + held + spent - refunded, at every moment: each movement changes both sides by the same.
local function make_ledger()
  local CHARGED, HELD, CAPTURED, RELEASED, EXPIRED, VOID = 1, 2, 3, 4, 5, 6
  local TOTALS = { 'available', 'held', 'granted', 'spent', 'refunded' }
  -- Charges can be refunded, and idempotency keys are known, for so long, in ms.
  local KEPT = 30 * 24 * 3600 * 1000
  -- What was bought can be taken back for so long, in ms: a payment may be disputed long after.
  local PURCHASE_KEPT = 730 * 24 * 3600 * 1000
  -- That a charge which may still come is not to be made, in ms.
  local VOID_KEPT = 600000
  local MOST = 9007199254740991
  local MOST_SWEPT, TRIMMED = 1000, 100

  local ledger = {}

  local function whole(number)
    return string.format('%.0f', number)
  end

  -- What a movement does to the totals, by its kind: available, held, granted, spent, refunded.
  local function effect(kind, available, held)
    local net = available + held
    if kind == 'grant' or kind == 'revoke' then return available, held, net, 0, 0 end
    if kind == 'charge' or kind == 'capture' then return available, held, 0, -net, 0 end
    if kind == 'refund' then return available, held, 0, 0, net end
    return available, held, 0, 0, 0
  end

  local function read(key)
    local sums = redis.call('HMGET', key, 'available', 'held', 'granted', 'spent', 'refunded')
    local known = sums[1] ~= false
    for index = 1, 5 do sums[index] = tonumber(sums[index] or 0) end
    return sums, known
  end

  local function write(key, sums)
    local row = {}
    for index = 1, 5 do
      row[index * 2 - 1] = TOTALS[index]
      row[index * 2] = whole(sums[index])
    end
    redis.call('HSET', key, unpack(row))
  end

  local function add(sums, kind, available, held)
    local effects = { effect(kind, available, held) }
    for index = 1, 5 do sums[index] = sums[index] + effects[index] end
  end

  -- Adds what the entries of a stream say.
  local function add_entries(sums, entries)
    for _, entry in ipairs(entries) do
      local fields = entry[2]
      add(sums, fields[2], tonumber(fields[4]), tonumber(fields[6]))
    end
  end

  -- Keeps the sum of the oldest movements, then forgets them.
  local function trim(account)
    local stream, checkpoint = account.key .. ':s', account.key .. ':k'
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', TRIMMED)
    local sums = read(checkpoint)
    add_entries(sums, oldest)
    write(checkpoint, sums)
    redis.call('HSET', checkpoint, 'id', oldest[#oldest][1])
    redis.call('XTRIM', stream, 'MAXLEN', '=', whole(account.length - #oldest))
  end

  -- Makes a movement. `ref` is what it concerns.
  local function move(account, kind, available, held, ref)
    add(account.sums, kind, available, held)
    account.known = true
    local stream = account.key .. ':s'
    account.id = redis.call('XADD', stream, '*', 't', kind, 'a', whole(available), 'h', whole(held), 'r', ref)
    write(account.key, account.sums)
    account.length = redis.call('XLEN', stream)
    if account.length >= account.history + TRIMMED then trim(account) end
  end

  local function charge_key(account, id)
    return account.key .. ':c:' .. id
  end

  -- A charge or hold: how it is, how much it was, how much of it is spent, and how much of that is refunded.
  local function find(account, id)
    local stored = redis.call('GET', charge_key(account, id))
    if not stored then return nil end
    local charge = { id = id }
    local state, amount, spent, refunded = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
    charge.state, charge.amount, charge.spent, charge.refunded =
      tonumber(state), tonumber(amount), tonumber(spent), tonumber(refunded)
    return charge
  end

  local function keep_charge(account, charge, ms)
    local value = string.format('%d %.0f %.0f %.0f', charge.state, charge.amount, charge.spent, charge.refunded)
    redis.call('SET', charge_key(account, charge.id), value, 'PX', whole(ms or KEPT))
  end

  local function hold_name(charge)
    return charge.id .. ' ' .. whole(charge.amount)
  end

  -- Gives back what was held until now.
  local function sweep(account, now)
    local holds = account.key .. ':h'
    local ended = redis.call('ZRANGEBYSCORE', holds, '-inf', whole(now), 'LIMIT', 0, MOST_SWEPT)
    for _, name in ipairs(ended) do
      local id, amount = string.match(name, '^(%S+) (%d+)$')
      amount = tonumber(amount)
      redis.call('ZREM', holds, name)
      keep_charge(account, { id = id, state = EXPIRED, amount = amount, spent = 0, refunded = 0 })
      move(account, 'expire', amount, -amount, id)
    end
  end

  -- Opens an account. `looking`: nothing is changed.
  function ledger.open(key, now, history, looking)
    local sums, known = read(key)
    local account = { key = key, sums = sums, known = known, history = history }
    if not looking and account.sums[2] > 0 then sweep(account, now) end
    return account
  end

  -- Whether so much can be charged under this name.
  function ledger.has(account, id, amount)
    return account.sums[1] >= amount and redis.call('EXISTS', charge_key(account, id)) == 0
  end

  -- Charges, or holds for so long, in microseconds.
  function ledger.charge(account, id, amount, held_for, now)
    local charge = { id = id, amount = amount, spent = 0, refunded = 0 }
    if held_for > 0 then
      charge.state = HELD
      keep_charge(account, charge, math.ceil(held_for / 1000) + KEPT)
      redis.call('ZADD', account.key .. ':h', whole(now + held_for), hold_name(charge))
      move(account, 'hold', -amount, amount, id)
    else
      charge.state, charge.spent = CHARGED, amount
      keep_charge(account, charge)
      move(account, 'charge', -amount, 0, id)
    end
  end

  -- Ends a hold: so much of it is spent, the rest falls back.
  local function end_hold(account, charge, spent, state)
    redis.call('ZREM', account.key .. ':h', hold_name(charge))
    charge.spent = spent
    charge.state = state
    keep_charge(account, charge)
    move(account, (spent > 0 or state == CAPTURED) and 'capture' or 'release', charge.amount - spent, -charge.amount, charge.id)
  end

  local function refund(account, charge, amount)
    charge.refunded = charge.refunded + amount
    keep_charge(account, charge)
    move(account, 'refund', amount, 0, charge.id)
  end

  -- Why something is not done.
  local UNKNOWN, SHORT, ABOVE, WAS_CAPTURED, WAS_RELEASED, HAS_EXPIRED, NO_HOLD, OTHER_AMOUNT, FULL, NOT_SPENT, NO_ACCOUNT =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
  local not_held = {
    [CHARGED] = NO_HOLD,
    [CAPTURED] = WAS_CAPTURED,
    [RELEASED] = WAS_RELEASED,
    [EXPIRED] = HAS_EXPIRED,
    [VOID] = WAS_RELEASED,
  }

  -- -1 captures all.
  function ledger.capture(account, id, amount)
    local charge = find(account, id)
    if not charge then return UNKNOWN end
    if charge.state ~= HELD then return not_held[charge.state] end
    if amount > charge.amount then return ABOVE end
    end_hold(account, charge, amount < 0 and charge.amount or amount, CAPTURED)
    return 0
  end

  -- What is free already stays so.
  function ledger.release(account, id)
    local charge = find(account, id)
    if not charge then return UNKNOWN end
    if charge.state == HELD then
      end_hold(account, charge, 0, RELEASED)
    elseif charge.state == CHARGED or charge.state == CAPTURED then
      return not_held[charge.state]
    end
    return 0
  end

  -- -1 refunds what is left of it.
  function ledger.refund(account, id, amount)
    local charge = find(account, id)
    if not charge then return UNKNOWN end
    local left = charge.spent - charge.refunded
    if charge.state ~= CHARGED and charge.state ~= CAPTURED then return NOT_SPENT end
    if amount < 0 then amount = left end
    if amount > left then return ABOVE end
    if amount > 0 then refund(account, charge, amount) end
    return 0
  end

  -- Makes what a charge comes to a total: down gives back, up takes what there is. Tells what it comes to by then.
  function ledger.settle(account, id, total)
    local charge = find(account, id)
    if not charge then return UNKNOWN, 0 end
    if charge.state == RELEASED or charge.state == EXPIRED or charge.state == VOID then return not_held[charge.state], 0 end
    if charge.state == HELD then end_hold(account, charge, math.min(total, charge.amount), CHARGED) end
    local by = total - (charge.spent - charge.refunded)
    if by < 0 then
      refund(account, charge, -by)
    elseif by > 0 then
      by = math.max(0, math.min(by, account.sums[1]))
      if by > 0 then
        charge.spent = charge.spent + by
        keep_charge(account, charge)
        move(account, 'charge', -by, 0, id)
      end
    end
    return 0, charge.spent - charge.refunded
  end

  -- Gives back all that a charge or hold still has, once. One that has not come yet will not be made any more; what was captured
  -- stays.
  function ledger.cancel(account, id)
    local charge = find(account, id)
    if not charge then
      keep_charge(account, { id = id, state = VOID, amount = 0, spent = 0, refunded = 0 }, VOID_KEPT)
    elseif charge.state == HELD then
      end_hold(account, charge, 0, RELEASED)
    elseif charge.state == CHARGED then
      charge.state = VOID
      local left = charge.spent - charge.refunded
      if left > 0 then refund(account, charge, left) else keep_charge(account, charge) end
    end
    return 0
  end

  -- Looks a name up under which something was done before; tells also where that was.
  function ledger.done(account, name, amount)
    if name == '' then return nil end
    local stored = redis.call('GET', account.key .. ':i:' .. name)
    if not stored then return nil end
    local of, id = string.match(stored, '^(-?%d+) (.+)$')
    account.id = id
    return tonumber(of) == amount and 0 or OTHER_AMOUNT
  end

  function ledger.note_done(account, name, amount)
    if name == '' or not account.id then return end
    redis.call('SET', account.key .. ':i:' .. name, whole(amount) .. ' ' .. account.id, 'PX', whole(KEPT))
  end

  -- Adds credits, or with a negative amount takes them back: then what is available may fall below zero. Who was never given any
  -- has none to give back. `ref` is what the app calls it.
  function ledger.grant(account, amount, ref)
    if amount < 0 and not account.known then return NO_ACCOUNT end
    if account.sums[3] + amount > MOST or account.sums[1] + account.sums[2] + amount > MOST then return FULL end
    move(account, amount < 0 and 'revoke' or 'grant', amount, 0, ref)
    return 0
  end

  local function purchase_key(account, name)
    return account.key .. ':p:' .. name
  end

  local MOST_SO_FAR, ONCE, RETURNED = 1, 2, 3

  -- Remembers what a purchase is asked for that was not told yet: of each who asks the share of its price, and what that is called.
  local function ask_early(key, early, by, how, part, price, ref)
    local shares = early and cjson.decode(early) or {}
    local own
    for _, share in ipairs(shares) do
      if share[1] == by then own = share end
    end
    if how == RETURNED then part, price = 0, 1 end
    if not own then
      shares[#shares + 1] = { by, part, price, ref }
    elseif how == RETURNED or (how == MOST_SO_FAR and part * own[3] > own[2] * price) then
      own[2], own[3] = part, price
    end
    redis.call('HSET', key, 'early', cjson.encode(shares))
    redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
  end

  -- Takes back of a purchase what a part of its price bought, or returns that. `by` is who asks: the most that it asked for counts,
  -- or what it asked for first, or nothing any more. Together they take no more than it gave. Tells what was taken (or, below zero,
  -- returned) by that, and 1 where `by` asked for the first time.
  -- Of one that was not told yet it is taken when it is, if `early` says so.
  function ledger.take_back(account, name, by, how, part, price, ref, early)
    local key, field = purchase_key(account, name), 'by:' .. by
    local row = redis.call('HMGET', key, 'credits', 'taken', field, 'early')
    if not row[1] then
      if early then ask_early(key, row[4], by, how, part, price, ref) end
      return UNKNOWN, 0, 0
    end
    local credits, taken, before = tonumber(row[1]), tonumber(row[2] or 0), tonumber(row[3] or 0)
    local amount = math.max(0, math.min(credits, math.floor(credits * part / price)))
    if how == MOST_SO_FAR then
      amount = math.max(before, amount)
    elseif how == RETURNED then
      amount = 0
    elseif row[3] then
      amount = before
    end
    local more = taken - before + amount
    local moved = math.min(credits, more) - math.min(credits, taken)
    local code = moved == 0 and 0 or ledger.grant(account, -moved, ref)
    if code ~= 0 then return code, 0, 0 end
    redis.call('HSET', key, 'taken', whole(more), field, whole(amount))
    redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
    return 0, moved, row[3] and 0 or 1
  end

  -- Adds credits that were bought, and remembers by which purchase.
  function ledger.buy(account, amount, name, ref)
    local code = ledger.grant(account, amount, ref)
    if code ~= 0 or name == '' then return code end
    local key, id = purchase_key(account, name), account.id
    local before = redis.call('HMGET', key, 'credits', 'early')
    redis.call('HSET', key, 'credits', whole((tonumber(before[1]) or 0) + amount))
    redis.call('PEXPIRE', key, whole(PURCHASE_KEPT))
    if not before[1] and before[2] then
      for _, share in ipairs(cjson.decode(before[2])) do
        ledger.take_back(account, name, share[1], ONCE, share[2], share[3], share[4])
      end
      account.id = id
    end
    return code
  end

  -- One of the same name is the same, told again: whatever became of it.
  function ledger.hold(account, id, amount, held_for, now)
    local before = find(account, id)
    if before then return before.amount == amount and 0 or OTHER_AMOUNT end
    if account.sums[1] < amount then return SHORT end
    ledger.charge(account, id, amount, held_for, now)
    return 0
  end

  -- Whether a movement, by its id, came before another.
  local function came_before(one, other)
    local ms, nth = string.match(one, '^(%d+)-(%d+)$')
    local other_ms, other_nth = string.match(other, '^(%d+)-(%d+)$')
    if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
    return tonumber(nth) < tonumber(other_nth)
  end

  -- Movements from a time on, as texts, five each: id, kind, available, held, what it concerns. What was trimmed is one, its sum.
  -- `after` is the id of the last one that was told before, or ''; `backwards`, the newest comes first.
  function ledger.history(account, since, limit, after, backwards)
    local answer = {}
    local function tell(id, kind, available, held, ref)
      local size = #answer
      answer[size + 1], answer[size + 2], answer[size + 3], answer[size + 4], answer[size + 5] = id, kind, available, held, ref
    end
    local trimmed = redis.call('HMGET', account.key .. ':k', 'id', 'available', 'held')
    local is_told = trimmed[1] and tonumber(string.match(trimmed[1], '^%d+')) >= since
    if is_told and after ~= '' then
      if backwards then is_told = came_before(trimmed[1], after) else is_told = came_before(after, trimmed[1]) end
    end
    if is_told and not backwards then
      tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '')
      limit = limit - 1
    end
    if limit < 1 then return answer end
    local stream, entries = account.key .. ':s', nil
    local from, till = whole(since), '+'
    if backwards then
      if after ~= '' then till = '(' .. after end
      entries = redis.call('XREVRANGE', stream, till, from, 'COUNT', whole(limit))
    else
      if after ~= '' and tonumber(string.match(after, '^%d+')) >= since then from = '(' .. after end
      entries = redis.call('XRANGE', stream, from, till, 'COUNT', whole(limit))
    end
    for _, entry in ipairs(entries) do
      local fields = entry[2]
      tell(entry[1], fields[2], fields[4], fields[6], fields[8])
    end
    if is_told and backwards and #entries < limit then tell(trimmed[1], 'checkpoint', trimmed[2], trimmed[3], '') end
    return answer
  end

  -- What the movements come to, and with `rebuild` makes that the account's totals.
  function ledger.sum_up(account, rebuild)
    local sums = read(account.key .. ':k')
    add_entries(sums, redis.call('XRANGE', account.key .. ':s', '-', '+'))
    if rebuild then
      account.sums = sums
      write(account.key, sums)
    end
    return sums
  end

  return ledger
end

local made_ledger
local function the_ledger()
  made_ledger = made_ledger or make_ledger()
  return made_ledger
end
