-- Claim due polls: token and lease. Jobs that follow another are among them, see coalesce.lua: what they wait for is
-- looked at here, and they are claimed when there is an outcome for them, or to lead.
-- ARGV: count boot number lease_ms window_ms kept floor_ms slack_ms (how long after its deadline a job may still be polled)
-- Returns per job: id token client upstream_id submitted deadline failures cb kd sn po trace shared. `shared` is '' or the outcome
-- that it takes over: {id of the leader, status, error code, message}.
local count, boot, number, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local window, cfg, floor, slack = tonumber(ARGV[5]), {kept = ARGV[6]}, tonumber(ARGV[7]), tonumber(ARGV[8])
local due = P .. 'due:poll'
local place = boot .. ':poll'
local out, taken = {int(NOW)}, {}
-- Followers that only look are passed over, so that others' polls are not behind them; at about 10 ms' worth.
local LOOK = 2000
-- Between two looks of a follower whose deadline has passed, while its leader is being asked.
local AGAIN_MS = 500

local function read(id)
  local f = redis.call('HMGET', P .. id, 'c', 'up', 'st', 'dl', 'fails', 'cb', 's', 'co', 'kd', 'sn', 't', 'b', 'po', 'tp', 'le')
  return {c = f[1], up = f[2], st = f[3], dl = tonumber(f[4]), fails = f[5], cb = f[6], s = f[7], co = f[8], kd = f[9],
    sn = f[10], t = tonumber(f[11]), b = f[12] or '', po = f[13], tp = f[14], le = f[15]}
end

local function claimed(id, token, r, shared)
  hold(id, due, token, lease)
  for _, v in ipairs({id, token, r.c, r.up or '', r.st or '', int(r.dl), r.fails or '0', r.cb, r.kd or '', r.sn or '',
    r.po or '0', r.tp or '', shared or ''}) do
    out[#out + 1] = v
  end
end

local function become_pending(id, r, g)
  redis.call('HSET', P .. id, 'up', g.up, 'st', g.st, 'kd', g.kd or '')
  move(id, r.c, r.b, 'queued', 'waiting', 'pending', 'waiting', cfg)
  r.up, r.st, r.kd, r.s = g.up, g.st, g.kd, 'pending'
end

local function wait_until(id, at)
  redis.call('ZADD', due, int(at), id)
  return 'wait'
end

-- Has the leader ask once more, for a follower whose deadline has passed: that is for all whose deadlines have.
local function ask_now(id, lead, g)
  local lease_end = redis.call('HGET', P .. lead, 'le')
  if not lease_end or tonumber(lease_end) <= NOW then
    -- LT: only sooner than it would be anyway.
    redis.call('ZADD', due, 'XX', 'LT', int(math.max(NOW, (g.lp or 0) + floor)), lead)
  end
  return wait_until(id, NOW + AGAIN_MS)
end

-- A follower takes the place of a leader that ended for itself, with its upstream job if there is one.
local function lead_on(id, r, g)
  local key = P .. 'grp:' .. r.co
  redis.call('HSET', key, 'lead', id)
  redis.call('SREM', P .. 'fol:' .. r.co, id)
  redis.call('HINCRBY', key, 'n', -1)
  redis.call('HDEL', key, 'fl', 'ft', 'amb')
  if r.s == 'pending' then
    if g.ap then
      r.sn = int(g.ap - g.st)
      redis.call('HSET', P .. id, 'sn', r.sn)
    end
    local at = (g.lp or 0) + floor
    if at > NOW then return wait_until(id, at) end
    redis.call('HSET', key, 'lp', int(NOW))
    return 'poll'
  end
  -- What was under way when its leader was cancelled, and not heard of since, was never accounted for.
  if g.amb or g.fl then redis.call('HSET', P .. id, 'amb', g.fl and '1' or g.amb) end
  enter(id, r.c, '', 'poll', 'submit', NOW)
  redis.call('ZADD', P .. 'ends:' .. r.c, int(math.min(r.dl, r.t + window)), id)
  return 'wait'
end

-- Looks at what a member of a group waits for. Returns 'poll' where it is to be claimed and polled, 'wait' where it
-- stays, or the outcome that it takes over.
local function look_at_leader(id, r)
  local key = P .. 'grp:' .. r.co
  local f = redis.call('HMGET', key, 'lead', 'up', 'st', 'kd', 'lp', 'ap', 'fl', 'amb')
  local lead, g = f[1], {up = f[2], st = f[3], kd = f[4], lp = f[5], ap = f[6], fl = f[7], amb = f[8]}
  if lead == id then
    redis.call('HSET', key, 'lp', int(NOW))
    return 'poll'
  end
  local l = redis.call('HMGET', P .. lead, 's', 'ec', 'em')
  if r.s == 'queued' and g.up then become_pending(id, r, g) end
  if is_shared(l[1], l[2]) then return {lead, l[1], l[2] or '', l[3] or ''} end
  if NOW >= r.dl then
    -- What was paid for is asked for once more after the deadline, as far as there is time.
    local asked = g.ap and tonumber(g.ap) >= r.dl
    if asked or not g.up or NOW >= r.dl + slack then return {lead, 'timed_out', '', ''} end
    if live(l[1]) then return ask_now(id, lead, g) end
  elseif live(l[1]) then
    return wait_until(id, r.dl)
  elseif g.fl and tonumber(g.fl) > NOW then
    return wait_until(id, math.min(tonumber(g.fl), r.dl))
  end
  if OWN[l[2]] and NOW >= r.t + window then return {lead, l[1], l[2], l[3] or ''} end
  return lead_on(id, r, g)
end

-- Claims what is to be claimed: to poll, or to take an outcome over. What waits again has no lease any more.
local function look_at(id, r, token)
  local shared = r.co and look_at_leader(id, r) or 'poll'
  if shared ~= 'wait' then
    claimed(id, token, r, shared ~= 'poll' and shared)
  elseif r.le then
    redis.call('HDEL', P .. id, 'tok', 'le')
  end
  return shared ~= 'wait'
end

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do look_at(one[1], read(one[1]), one[2]) end
  return out
end

local looked, seen = 0, 0
repeat
  -- Whatever is looked at is not due any more afterwards, so the next ones come first.
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'LIMIT', 0, count - #taken)
  seen = #ids
  for _, id in ipairs(ids) do
    local r = read(id)
    if r.s == 'pending' or (r.s == 'queued' and r.co) then
      if look_at(id, r, token_of(boot, number, #taken + 1)) then taken[#taken + 1] = id end
    else
      redis.call('ZREM', due, id)
    end
  end
  looked = looked + seen
until seen == 0 or #taken >= count or looked >= LOOK
note_begun(place, number, taken)
return out
