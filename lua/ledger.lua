-- What the ledger is asked besides decisions: grants, holds, captures, releases, refunds, balances, history.
--
-- KEYS   the account, and a key that never is (see plan.ts); what an account has besides is named after it, with the same hash tag.
-- ARGV   a JSON array: what to do, how many movements its history keeps, then
--        1 balance; 2 grant: how much, an idempotency key's hash or '', a purchase's or '', what the app calls it or ''; 3 hold: charge, how much, for how long in microseconds;
--        4 capture: charge, how much or -1 for all; 5 release: charge; 6 refund: charge, how much or -1 for the rest, key or '';
--        7 settle: charge, total; 8 cancel: charge; 9 history: since (ms), how many, after which id or '', 1 for the newest first; 10 sum up: 1 to rebuild the totals;
--        11 take back: purchase, by whom, how (1 the most so far, 2 once, 3 return), so much of its price, the price, what it is called or '', 1 to do it later where the purchase is not known
-- RETURNS integers: why it was not done (0 it was; 1 unknown charge, 2 too little credit, 3 above what there is, 4 captured before,
--         5 released before, 6 expired, 7 no hold, 8 the key stands for another amount, 9 too much, 10 not spent, 11 no such
--         account),
--         available, held, and of a grant its id's two parts, of a settlement what the charge comes to, of what is taken back
--         how much that was and 1 for the first time, of a sum the five totals and the five sums. Of history, texts: five a movement.
-- COMMANDS TIME GET SET EXISTS HMGET HSET PEXPIRE XADD XLEN XRANGE XREVRANGE XTRIM ZADD ZREM ZRANGEBYSCORE

--- include lib/ledger.lua

local BALANCE, GRANT, HOLD, CAPTURE, RELEASE, REFUND, SETTLE, CANCEL, HISTORY, SUM, TAKE_BACK =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local plan = cjson.decode(ARGV[1])
local what = plan[1]
local ledger = the_ledger()
local account = ledger.open(KEYS[1], now, plan[2])
if what == HISTORY then return ledger.history(account, plan[3], plan[4], plan[5], plan[6] == 1) end

local function once(name, amount, act)
  local before = ledger.done(account, name, amount)
  if before then return before end
  local code = act()
  if code == 0 then ledger.note_done(account, name, amount) end
  return code
end

local code, more = 0, {}
if what == GRANT then
  code = once(plan[4], plan[3], function() return ledger.buy(account, plan[3], plan[5], plan[6]) end)
  if code == 0 then
    local ms, nth = string.match(account.id, '^(%d+)-(%d+)$')
    more = { tonumber(ms), tonumber(nth) }
  end
elseif what == HOLD then
  code = ledger.hold(account, plan[3], plan[4], plan[5], now)
elseif what == CAPTURE then
  code = ledger.capture(account, plan[3], plan[4])
elseif what == RELEASE then
  code = ledger.release(account, plan[3])
elseif what == REFUND then
  code = once(plan[5], plan[4], function() return ledger.refund(account, plan[3], plan[4]) end)
elseif what == SETTLE then
  local comes_to
  code, comes_to = ledger.settle(account, plan[3], plan[4])
  more = { comes_to }
elseif what == CANCEL then
  ledger.cancel(account, plan[3])
elseif what == TAKE_BACK then
  local moved, first
  code, moved, first = ledger.take_back(account, plan[3], plan[4], plan[5], plan[6], plan[7], plan[8], plan[9] == 1)
  more = { moved, first }
elseif what == SUM then
  local before = {}
  for index = 1, 5 do before[index] = account.sums[index] end
  local sums = ledger.sum_up(account, plan[3] == 1)
  for index = 1, 5 do
    more[index] = before[index]
    more[index + 5] = sums[index]
  end
elseif what ~= BALANCE then
  return redis.error_reply('ERR unknown operation')
end
local answer = { code, account.sums[1], account.sums[2] }
for index = 1, #more do answer[index + 3] = more[index] end
return answer
