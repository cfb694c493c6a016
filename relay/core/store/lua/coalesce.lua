-- Equal unfinished jobs of a client that ask for it share one upstream job, as a group: its leader is submitted and
-- polled like any job, its followers wait in due:poll until the leader has something for them or their deadline comes.
--   co:<client>:<ch>   the group that new jobs join; ch, a field, is the hash of what makes jobs equal, and after a dot
--                      for how many ms an upstream job is joined at most
--   grp:<group>        named after its first leader; field co of all its members:
--     lead n           the leader, and how many follow
--     up st kd         the upstream job that they share, since when, and what its latency is learned under
--     lp ap            when the leader was last claimed for a poll; when the last one began that found it pending
--     fl ft            until when a cancelled leader's submit may still bring something, and the token that it is under
--     amb              one was never accounted for: 1; and is counted: 0
--   fol:<group>        the followers
--   refs:<id>          how many share the result of id; their field ro names it
--   paid:<hash>        upstream jobs of groups whose credits are counted
local FOLLOWERS = 500
local PAID_KEPT_MS = 48 * 3600000

-- Failures that say nothing of those that follow: they go on without their leader, as when it timed out.
local OWN = {upstream_credits_exhausted = true, upstream_unreachable = true}

local function live(status)
  return status == 'queued' or status == 'pending'
end

local function is_shared(status, code)
  return status == 'done' or (status == 'failed' and not OWN[code])
end

-- Whether more may follow: there is or will be a leader, and what it has at the upstream is not too old to hope for.
local function is_open(g, hash)
  if not g[1] or tonumber(g[2]) >= FOLLOWERS then return false end
  if g[3] and NOW - g[3] > tonumber(string.match(hash, '%.(%d+)$')) then return false end
  local l = redis.call('HMGET', P .. g[1], 's', 'ec')
  return live(l[1]) or (l[1] and tonumber(g[2]) > 0 and not is_shared(l[1], l[2]))
end

-- A job comes into being: it follows where it can, else it leads those to come. Returns whether it follows.
local function join(id, client, hash)
  local name = P .. 'co:' .. client .. ':' .. hash
  local group = redis.call('GET', name)
  if group and is_open(redis.call('HMGET', P .. 'grp:' .. group, 'lead', 'n', 'st'), hash) then
    redis.call('HSET', P .. id, 'co', group, 'ch', hash)
    redis.call('HINCRBY', P .. 'grp:' .. group, 'n', 1)
    redis.call('SADD', P .. 'fol:' .. group, id)
    return true
  end
  redis.call('HSET', P .. id, 'co', id, 'ch', hash)
  redis.call('HSET', P .. 'grp:' .. id, 'lead', id, 'n', '0')
  redis.call('SET', name, id)
  return false
end

-- There is something for the followers: they look now, but for those that somebody is at work on, or was: they are due
-- when that lease ends.
local function wake(group)
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'fol:' .. group)) do
    if redis.call('HEXISTS', P .. id, 'le') == 0 then redis.call('ZADD', P .. 'due:poll', int(NOW), id) end
  end
end

-- A member goes its own way. When the leader has ended and nobody follows any more, the group is over.
local function leave(id, group, client)
  local g = redis.call('HMGET', P .. 'grp:' .. group, 'lead', 'n')
  local n = tonumber(g[2] or 0)
  if redis.call('SREM', P .. 'fol:' .. group, id) == 1 then n = redis.call('HINCRBY', P .. 'grp:' .. group, 'n', -1) end
  if n > 0 or (g[1] and g[1] ~= id and live(redis.call('HGET', P .. g[1], 's'))) then return end
  redis.call('DEL', P .. 'grp:' .. group, P .. 'fol:' .. group)
  local name = P .. 'co:' .. client .. ':' .. (redis.call('HGET', P .. id, 'ch') or '')
  if redis.call('GET', name) == group then redis.call('DEL', name) end
end

-- Whether a job leads and others follow.
local function is_followed(id, group)
  if not group then return false end
  local g = redis.call('HMGET', P .. 'grp:' .. group, 'lead', 'n')
  return g[1] == id and tonumber(g[2]) > 0
end

-- Whether the followers of a job that was cancelled wait for its submit: for the one under this token, or for any.
local function is_under_way(id, group, token)
  if not is_followed(id, group) then return false end
  local waited_for = redis.call('HGET', P .. 'grp:' .. group, 'ft')
  return waited_for and (not token or waited_for == token)
end

-- A member's status has changed, in its record already: a leader tells its followers, a follower that ends leaves.
local function changed_in_group(id, group, client, status)
  if is_followed(id, group) then
    wake(group)
  elseif OUTCOME[status] then
    leave(id, group, client)
  end
end

-- Whether the credits of an upstream job are still to be counted: once, whoever of a group finds its result.
local function is_unpaid(group, up)
  if not group or not up then return true end
  return redis.call('SET', P .. 'paid:' .. redis.sha1hex(up), '1', 'NX', 'PX', PAID_KEPT_MS) and true or false
end
