-- Claim due polls: token and lease. Jobs that follow another are among them, see coalesce.lua: what they wait for is
-- looked at here, and they are claimed when there is an outcome for them, or when they go their own way.
-- ARGV: count boot number lease_ms window_ms kept
-- Returns per job: id token client upstream_id submitted deadline failures cb kd sn shared. `shared` is '' or the outcome of
-- the job that it follows: {id, status, error code, message}. Without upstream id nothing was ever submitted for it.
local count, boot, number, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local window, cfg = tonumber(ARGV[5]), {kept = ARGV[6]}
local due = P .. 'due:poll'
local place = boot .. ':poll'
local out, taken = {int(NOW)}, {}

local function read(id)
  return redis.call('HMGET', P .. id, 'c', 'up', 'st', 'dl', 'fails', 'cb', 's', 'co', 'kd', 'sn')
end

local function claimed(id, token, r, shared)
  hold(id, due, token, lease)
  for _, v in ipairs({id, token, r[1], r[2] or '', r[3] or '', r[4], r[5] or '0', r[6], r[9] or '', r[10] or '', shared or ''}) do
    out[#out + 1] = v
  end
end

-- What is an outcome of its leader's own, and none for those that follow: they go on without it.
local OWN = {upstream_credits_exhausted = true, upstream_unreachable = true}

local function become_pending(id, r, lead, up, submitted)
  redis.call('HSET', P .. id, 'up', up, 'st', submitted)
  r[9] = redis.call('HGET', P .. lead, 'kd') or ''
  redis.call('HSET', P .. id, 'kd', r[9])
  move(id, r[1], redis.call('HGET', P .. id, 'b') or '', 'queued', 'waiting', 'pending', 'waiting', cfg)
  r[2], r[3], r[7] = up, submitted, 'pending'
end

-- Looks at what a member of a group waits for. Returns 'poll' where it is to be claimed and polled by itself, 'wait'
-- where it stays, or the outcome that it shares.
local function look_at_leader(id, r)
  local group, deadline = r[8], tonumber(r[4])
  local lead = redis.call('HGET', P .. 'grp:' .. group, 'lead')
  if lead == id or not lead then return 'poll' end
  local l = redis.call('HMGET', P .. lead, 's', 'up', 'st', 'ec', 'em', 'fl')
  if r[7] == 'queued' and l[2] then become_pending(id, r, lead, l[2], l[3]) end
  if live(l[1]) then
    if NOW < deadline then
      redis.call('ZADD', due, int(deadline), id)
      return 'wait'
    end
    redis.call('HSET', P .. id, 'sp', '1')
    leave(id, group, r[1])
    redis.call('HDEL', P .. id, 'co')
    return 'poll'
  end
  if l[1] == 'done' or (l[1] == 'failed' and not OWN[l[4]]) then return {lead, l[1], l[4] or '', l[5] or ''} end
  if l[6] and tonumber(l[6]) > NOW and NOW < deadline then
    redis.call('ZADD', due, int(math.min(tonumber(l[6]), deadline)), id)
    return 'wait'
  end
  -- It ended for itself only. The first to come takes its place, with its upstream job if there is one.
  redis.call('HSET', P .. 'grp:' .. group, 'lead', id)
  redis.call('SREM', P .. 'fol:' .. group, id)
  redis.call('HINCRBY', P .. 'grp:' .. group, 'n', -1)
  if r[7] == 'pending' then return 'poll' end
  -- What was under way when its leader was cancelled was never accounted for.
  if l[6] then redis.call('HSET', P .. id, 'amb', '1') end
  enter(id, r[1], '', 'poll', 'submit', NOW)
  redis.call('ZADD', P .. 'ends:' .. r[1], int(math.min(deadline, NOW + window)), id)
  return 'wait'
end

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do
    local r = read(one[1])
    local shared = r[8] and look_at_leader(one[1], r)
    claimed(one[1], one[2], r, type(shared) == 'table' and shared)
  end
  return out
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'LIMIT', 0, count)) do
  local r = read(id)
  local shared = 'poll'
  if r[7] == 'pending' or r[7] == 'queued' then
    if r[8] then shared = look_at_leader(id, r) end
    if shared ~= 'wait' then
      taken[#taken + 1] = id
      claimed(id, token_of(boot, number, #taken), r, shared ~= 'poll' and shared)
    end
  else
    redis.call('ZREM', due, id)
  end
end
note_begun(place, number, taken)
return out
