-- Equal unfinished jobs of a client that ask for it share one upstream job, as a group: its leader is submitted and
-- polled like any job, its followers wait in due:poll until the leader has something for them or their deadline comes.
--   co:<client>:<ch>   the group that new jobs join; ch, a field, is the hash of what makes jobs equal
--   grp:<group>        lead, the leader, and n, how many follow; a group is called after its first leader
--   fol:<group>        the followers
-- Fields: co the group, of the leader and of followers; sp its upstream job is charged to another; ro whose result it
-- shares; fl a cancelled leader's submit was under way, until then. refs:<id> counts those that share the result of id.
local FOLLOWERS = 500

local function live(status)
  return status == 'queued' or status == 'pending'
end

-- A job comes into being: it follows where it can, else it leads those to come. Returns whether it follows.
local function join(id, client, hash)
  local name = P .. 'co:' .. client .. ':' .. hash
  local group = redis.call('GET', name)
  if group then
    local g = redis.call('HMGET', P .. 'grp:' .. group, 'lead', 'n')
    if g[1] and tonumber(g[2]) < FOLLOWERS and live(redis.call('HGET', P .. g[1], 's')) then
      redis.call('HSET', P .. id, 'co', group, 'ch', hash)
      redis.call('HINCRBY', P .. 'grp:' .. group, 'n', 1)
      redis.call('SADD', P .. 'fol:' .. group, id)
      return true
    end
  end
  redis.call('HSET', P .. id, 'co', id, 'ch', hash)
  redis.call('HSET', P .. 'grp:' .. id, 'lead', id, 'n', '0')
  redis.call('SET', name, id)
  return false
end

-- The leader has something for its followers: they look now.
local function wake(group)
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'fol:' .. group)) do
    redis.call('ZADD', P .. 'due:poll', 'XX', int(NOW), id)
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

-- A member's status has changed, in its record already: a leader tells its followers, a follower that ends leaves.
local function changed_in_group(id, group, client, status)
  local g = redis.call('HMGET', P .. 'grp:' .. group, 'lead', 'n')
  if g[1] == id and tonumber(g[2]) > 0 then
    wake(group)
  elseif OUTCOME[status] then
    leave(id, group, client)
  end
end
