--- include lib/ledger.lua

-- A charge of credits, as one more charge of a decision. Its account has keys of its own beside its partition's, and leaves no
-- record there. Its members: the charge's name, for how long it is only held in microseconds (or 0), and how many movements an
-- account's history keeps.
define[12] = function()
  local ledger = the_ledger()

  return {
    open = function(stored, limit, now)
      if type(stored) == 'table' then return stored end
      return { account = ledger.open(limit.own_key, now, tonumber(limit.extra[3]), not limit.commit) }
    end,

    earliest = function(state, limit, now, cost)
      if state.charged or ledger.has(state.account, limit.extra[1], cost) then return now end
      return math.huge
    end,

    remaining = function(state)
      return state.account.sums[1]
    end,

    charge = function(state, limit, now, cost)
      state.charged = true
      ledger.charge(state.account, limit.extra[1], cost, tonumber(limit.extra[2]), now)
      return 0
    end,

    refund = function(state, limit)
      ledger.cancel(state.account, limit.extra[1])
    end,

    -- What is held stands in the place of when nothing used counts any more: credits come back at no time of their own.
    expires = function(state, limit, now)
      return now + state.account.sums[2]
    end,

    pack = function()
      return '', 0
    end,
  }
end
