-- What is due, and what holds it back, in one trip. ARGV: boot, then pairs client, name of its upstream key's pause.
-- Also says that this worker lives.
-- Returns: now, {poll, deliver, enlist, purge} counts, per client {due submits, overdue, pause end, reason},
-- destinations whose gate is closed, paused ones
redis.call('ZADD', P .. 'workers', int(NOW), ARGV[1])
redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', int(NOW - 3600000))
local now = int(NOW)
local counts = {}
for _, kind in ipairs({'poll', 'deliver', 'enlist', 'purge'}) do
  counts[#counts + 1] = redis.call('ZCOUNT', P .. 'due:' .. kind, '-inf', now)
end
-- Parked callbacks of a destination whose gate opens are due too, and those of a client that may have slots again.
for _, key in ipairs({'wake', 'crowds'}) do counts[2] = counts[2] + redis.call('ZCOUNT', P .. key, '-inf', now) end
local closed, paused = redis.call('ZCOUNT', P .. 'wake', '(' .. now, '+inf'), redis.call('ZCARD', P .. 'paused')
local clients = {}
for i = 2, #ARGV, 2 do
  local pause = redis.call('HMGET', P .. 'pause:' .. ARGV[i + 1], 'until', 'why')
  clients[#clients + 1] = {
    redis.call('ZCOUNT', P .. 'due:submit:' .. ARGV[i], '-inf', now),
    redis.call('ZCOUNT', P .. 'ends:' .. ARGV[i], '-inf', now),
    pause[1] or '0', pause[2] or '',
  }
end
return {now, counts, clients, closed, paused}
