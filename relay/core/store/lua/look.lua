-- What is due, and what holds it back, in one trip. ARGV: boot, then pairs client, name of its upstream key's pause.
-- Also says that this worker lives.
-- Returns: now, {poll, deliver, enlist, purge} counts, per client {due submits, overdue, pause end, reason, since when},
-- destinations whose gate is closed, paused ones, since when the oldest {poll, deliver, enlist, purge} is due (now where
-- none is)
redis.call('ZADD', P .. 'workers', int(NOW), ARGV[1])
redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', int(NOW - 3600000))
local now = int(NOW)

local function since(key, due)
  return due > 0 and redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or now
end

local counts, oldest = {}, {}
for _, kind in ipairs({'poll', 'deliver', 'enlist', 'purge'}) do
  local key = P .. 'due:' .. kind
  counts[#counts + 1] = redis.call('ZCOUNT', key, '-inf', now)
  oldest[#oldest + 1] = since(key, counts[#counts])
end
-- Callbacks that wait for slots: as long as the first in line does.
for _, place in ipairs(redis.call('ZRANGE', P .. 'crowds', 0, 49)) do
  local first = redis.call('ZRANGE', P .. 'crowd:' .. place, 0, 0, 'WITHSCORES')[2]
  if first and tonumber(first) < tonumber(oldest[2]) then oldest[2] = first end
end
-- Parked callbacks of a destination whose gate opens are due too, and those of a client that may have slots again.
for _, key in ipairs({'wake', 'crowds'}) do counts[2] = counts[2] + redis.call('ZCOUNT', P .. key, '-inf', now) end
local closed, paused = redis.call('ZCOUNT', P .. 'wake', '(' .. now, '+inf'), redis.call('ZCARD', P .. 'paused')
local clients = {}
for i = 2, #ARGV, 2 do
  local pause = redis.call('HMGET', P .. 'pause:' .. ARGV[i + 1], 'until', 'why')
  local submits = P .. 'due:submit:' .. ARGV[i]
  local due = redis.call('ZCOUNT', submits, '-inf', now)
  clients[#clients + 1] = {
    due, redis.call('ZCOUNT', P .. 'ends:' .. ARGV[i], '-inf', now),
    pause[1] or '0', pause[2] or '', since(submits, due),
  }
end
return {now, counts, clients, closed, paused, oldest}
