-- Save what steps came to. Each save compares its token and applies one transition; a repeat after a lost reply is
-- recognised by its nonce. Saves of one call stand and fall alone.
-- ARGV: settings, then pairs: a msgpack map, the result or ''.
-- settings, a msgpack map: kept, events of a client; ttl, undelivered, ms that an ended job is kept; lease, ms; permits of
-- a destination; attempts, first, the schedule's length and first delay in ms; and those that note_health names.
--   id tok n(once)   set{field=value} del[field] s d (new states)   due(set) delay(ms)
--   att(empt log entry)   gen   how(the attempt ended: well, bad, silent)   left(free slots of the worker that made it)
--   at(what it has under way there)
--   carry(go on to the callback under this token, if one of the worker's slots is for it; see slots.lua. A map:
--     left, of(what the client has under way), all(what all have); empty: it shares none)
--   ask(1: the upstream was asked, with or without an answer) of(whose result it shares, as a follower) cr(edits taken) amb(iguous submit counted) up(stream id, when it is news)
-- Returns per save: 'saved' now [news of the destination] | 'carried' now attempt | 'again' | 'refused' | 'gone'
local cfg = cmsgpack.unpack(ARGV[1])
local KEEP_LONG = {exhausted = true, gone = true}

-- `up`, of a member of a group, is what it shares: that is charged once.
local function account(client, op, group, up)
  local key = P .. 'acct:' .. client
  if op.up then redis.call('HINCRBY', key, 'submitted', 1) end
  if op.cr and is_unpaid(group, up) then
    redis.call('HINCRBYFLOAT', key, 'credits', op.cr)
    count(client, 'credits', math.max(0, math.floor(op.cr * 1000 + 0.5)))
  end
  if op.amb then redis.call('HINCRBY', key, 'ambiguous', 1) end
end

-- How often the upstream was asked. A submit that was claimed and not sent was none.
local function note_asked(id, r, op)
  if op.ask then
    if r.k == 'poll' then redis.call('HINCRBY', P .. id, 'po', 1) end
    count(r.c, r.k == 'poll' and 'polls' or 'submits', 1)
  elseif r.k == 'submit' then
    redis.call('HINCRBY', P .. id, 'sub', -1)
  end
end

-- The submit of a leader has ended that was cancelled meanwhile, and its followers have waited for that: they go on with
-- what it brought, or with the note of what is not accounted for. Returns whether it is of use.
local function late_submit(id, group, op)
  local key = P .. 'grp:' .. group
  redis.call('HDEL', key, 'fl', 'ft')
  if op.up then redis.call('HSET', key, 'up', op.up, 'st', int(NOW), 'kd', op.set and op.set.kd or '') end
  if op.amb then redis.call('HSET', key, 'amb', '1') end
  wake(group)
  return op.up
end

-- The token is void, and what was paid for is counted all the same. A submit is an orphan then: the upstream took a job
-- that nobody waits for; unless the record has its id, as when the repeat of a save comes after the next step's.
-- A cancelled job's result is dropped, its credits are not; what it submitted is of use where others follow it.
local function late(id, r, op)
  local key = P .. id
  local f = redis.call('HMGET', key, 'up', 'on', 'cr', 'co', 'kept')
  local cancelled = r.s == 'cancelled'
  -- An upstream job is of use whoever submitted it; the rest says something of its own submit only.
  local waited_for = cancelled and is_under_way(id, f[4], not op.up and op.tok)
  if op.up and op.up == f[1] then
    if not cancelled or f[5] then return {'again', int(NOW)} end
  elseif op.up and not string.find(f[2] or '', op.n .. ' ', 1, true) then
    redis.call('HSET', key, 'on', (f[2] or '') .. op.n .. ' ')
    account(r.c, op)
    count(r.c, 'submits', 1)
    if cancelled and not f[1] then redis.call('HSET', key, 'up', op.up, 'st', int(NOW)) end
    if waited_for and late_submit(id, f[4], op) then
      redis.call('HSET', key, 'kept', '1')
      return {'saved', int(NOW)}
    end
    redis.call('HINCRBY', P .. 'acct:' .. r.c, 'orphans', 1)
  elseif op.cr and cancelled and not f[3] then
    redis.call('HSET', key, 'cr', op.cr)
    account(r.c, op, f[4], f[1])
  elseif waited_for then
    late_submit(id, f[4], op)
  end
  return {'refused'}
end

-- The worker's attempts there are not known here: all workers' are taken for them, and who is wronged by that is due.
local function may_carry_on(where, doubt, told)
  if permits_free(where, cfg.permits) < 1 then return false end
  if not told.left then return true end
  local open = redis.call('ZCARD', P .. 'flight:' .. where)
  return has_slot(open, told.of, told.all, told.left, doubt, cfg)
end

-- No more leave their parked set than would be begun; where nobody has answered, one for each attempt that ends.
local function to_release(where, op)
  if not op.left then return cfg.permits end
  local open = redis.call('ZCARD', P .. 'flight:' .. where)
  if op.how == 'silent' then return math.max(1, open) end
  local here = math.min(open, op.at or open)
  return math.max(1, math.min(cfg.permits, open - here + math.ceil(share(here, op.left, 0, nil, nil, cfg))))
end

local function carried_on(id, doubt, token)
  local attempt = attempt_of(id, token)
  attempt[5] = doubt
  return {'carried', int(NOW), attempt}
end

-- What a save of a member of a group means to the others.
local function tell_group(id, r, op, group, noted)
  local key = P .. 'grp:' .. group
  if redis.call('HGET', key, 'lead') == id then
    if op.up then redis.call('HSET', key, 'up', op.up, 'st', int(NOW), 'kd', op.set and op.set.kd or '') end
    -- Of a leader that ends without having been submitted, what is not accounted for is counted by now.
    if OUTCOME[op.s] and (op.amb or noted == '2' or noted == '3') then redis.call('HSET', key, 'amb', '0') end
    -- It was asked for once more before that.
    local asked = op.s == 'timed_out' and redis.call('HGET', key, 'lp')
    if asked then redis.call('HSET', key, 'ap', asked) end
  end
  changed_in_group(id, group, r.c, op.s)
end

-- Results that are carried along in one answer: no more than the worker can hold.
local CARRIED_BYTES = 4 * 1024 * 1024
local carried = 0

local function save(op, result)
  local id = op.id
  local key = P .. id
  local f = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'dest', 'k', 'tok', 'nn', 'g', 'co', 'amb', 'up',
    'ct')
  if not f[1] then return {'gone'} end
  local r = {c = f[1], s = f[2], d = f[3], b = f[4] or '', dest = f[5], k = f[6]}
  if f[8] == op.n then
    if op.carry and f[7] == op.tok and r.k == 'deliver' then
      return carried_on(id, doubt_of(destination_of(r.c, r.dest)), op.tok)
    end
    return {'again', int(NOW)}
  end
  if f[7] ~= op.tok then return late(id, r, op) end
  redis.call('HSET', key, 'nn', op.n)
  account(r.c, op, f[10], f[12])
  note_asked(id, r, op)
  if op.set then
    for field, value in pairs(op.set) do redis.call('HSET', key, field, value) end
  end
  if op.del then redis.call('HDEL', key, unpack(op.del)) end
  if op.up then redis.call('HSET', key, 'up', op.up, 'st', int(NOW)) end
  local where, news = destination_of(r.c, r.dest), nil
  local limit = op.att and to_release(where, op)
  if op.att then
    call_crowd(r.c)
    log_attempt(id, r.c, op.att, op.d == 'delivered')
    redis.call('HDEL', key, 'oa')
    news = note_health(r.c, r.dest, op.how, cfg)
  end
  if op.gen and tostring(op.gen) ~= (f[9] or '0') then
    -- Somebody asked for a redelivery meanwhile: this attempt is history, the new generation is due.
    redis.call('HDEL', key, 'tok', 'le')
    give_back(where, id, limit)
    enter(id, r.c, r.dest, r.k, 'deliver', NOW)
    return {'saved', int(NOW), news}
  end
  if result ~= '' then redis.call('SET', P .. 'res:' .. id, result) end
  if op.of then
    redis.call('HSET', key, 'ro', op.of)
    redis.call('INCR', P .. 'refs:' .. op.of)
  end
  if op.att then give_back(where, id, limit) end
  if op.s and OUTCOME[op.s] then
    redis.call('ZREM', P .. 'ends:' .. r.c, id)
    redis.call('HSET', key, 'ct', int(NOW))
  elseif op.s == 'pending' then
    redis.call('ZREM', P .. 'ends:' .. r.c, id)
  end
  local delivery = op.d or r.d
  if op.d and (op.due == 'purge') then
    if op.s then
      move(id, r.c, r.b, r.s, r.d, op.s, delivery, cfg)
      if f[10] then tell_group(id, r, op, f[10], f[11]) end
      redis.call('HDEL', key, 'tok', 'le')
      enter(id, r.c, r.dest, r.k, 'purge', NOW + cfg.ttl)
    else
      if delivery == 'delivered' then
        redis.call('HSET', key, 'dt', int(NOW))
        -- One that somebody asked for again is as late as they were to ask.
        if (f[9] or '0') == '0' then count(r.c, lateness(NOW - f[13]), 1) end
      end
      end_delivery(id, r, delivery, KEEP_LONG[delivery] and cfg.undelivered or cfg.ttl, cfg)
    end
    return {'saved', int(NOW), news}
  end
  local at = NOW + op.delay
  if op.due == 'deliver' then redis.call('HSET', key, 'nx', int(at)) end
  if op.s then
    move(id, r.c, r.b, r.s, r.d, op.s, delivery, cfg)
    if f[10] then tell_group(id, r, op, f[10], f[11]) end
  else
    if f[10] and op.set and op.set.sn and redis.call('HGET', P .. 'grp:' .. f[10], 'lead') == id then
      redis.call('HSET', P .. 'grp:' .. f[10], 'ap', int(redis.call('HGET', key, 'st') + op.set.sn))
    end
    set_delivery(id, r, delivery, cfg)
  end
  local doubt = op.carry and doubt_of(where)
  if op.carry and carried < CARRIED_BYTES and may_carry_on(where, doubt, op.carry) then
    enter(id, r.c, r.dest, r.k, 'deliver', NOW + cfg.lease)
    redis.call('HSET', key, 'le', int(NOW + cfg.lease))
    open_attempt(id, where, NOW + cfg.lease)
    local answer = carried_on(id, doubt, op.tok)
    carried = carried + result_bytes(answer[3][4])
    return answer
  end
  redis.call('HDEL', key, 'tok', 'le')
  enter(id, r.c, r.dest, r.k, op.due, at)
  return {'saved', int(NOW), news}
end

local out = {}
for i = 2, #ARGV, 2 do out[#out + 1] = save(cmsgpack.unpack(ARGV[i]), ARGV[i + 1]) end
note_counted()
return out
