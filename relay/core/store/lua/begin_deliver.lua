-- Claim due callbacks: token, lease, permit at the destination, number of the attempt.
-- An attempt that its worker never ended is closed here; where it was the schedule's last, the delivery is exhausted.
-- What its destination has no permit for is parked, once, until one comes back.
-- ARGV: count boot number lease_ms permits attempts ttl_ms undelivered_ttl_ms kept max_bytes first_ms
-- Returns now, whether there is more to look at, then the attempts.
local count, boot, number, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local permits, attempts, undelivered = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local cfg = {kept = ARGV[9], ttl = tonumber(ARGV[7]), first = tonumber(ARGV[11])}
local max_bytes = tonumber(ARGV[10])
local due = P .. 'due:deliver'
local free, out, claimed, bytes = {}, {int(NOW), 0}, 0, 0
-- Parking looks at more than it claims, so that one destination's backlog does not hide the others; at about 10 ms' worth.
local LOOK = 1000

local function cut_off(id, attempt, started)
  log_attempt(id, cjson.encode({number = tonumber(attempt), started_ms = tonumber(started),
    duration_ms = math.max(0, NOW - started), outcome = 'connection_error', error = 'worker stopped'}))
  redis.call('HDEL', P .. id, 'oa')
end

local function claim(id, dest)
  local token = boot .. '.' .. int(number)
  number = number + 1
  redis.call('HSET', P .. id, 'tok', token, 'le', int(NOW + lease))
  redis.call('ZADD', due, int(NOW + lease), id)
  open_attempt(id, dest, NOW + lease)
  local attempt = attempt_of(id, token)
  bytes = bytes + #(attempt[4] or '') + #(attempt[3][3] or '')
  out[#out + 1] = attempt
  claimed = claimed + 1
end

local function begin(id, score)
  local key = P .. id
  local f = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'dest', 'k', 'a', 'ga', 'oa')
  local r = {c = f[1], s = f[2], d = f[3], b = f[4] or '', dest = f[5], k = f[6]}
  if r.d ~= 'pending' and r.d ~= 'retrying' then
    redis.call('ZREM', due, id)
    return
  end
  if f[9] then cut_off(id, f[7], f[9]) end
  -- Its own permit: of the attempt that was cut off, or kept for it when it was unparked.
  if redis.call('ZREM', P .. 'flight:' .. r.dest, id) == 1 and free[r.dest] then free[r.dest] = free[r.dest] + 1 end
  if tonumber(f[8] or 0) >= attempts then
    end_delivery(id, r, 'exhausted', undelivered, cfg)
    unpark(r.dest, permits_free(r.dest, permits))
    free[r.dest] = nil
    return
  end
  if f[9] then set_delivery(id, r, 'retrying', cfg) end
  free[r.dest] = free[r.dest] or permits_free(r.dest, permits)
  if free[r.dest] < 1 then
    redis.call('HDEL', key, 'tok', 'le')
    enter(id, r.c, r.dest, 'deliver', 'parked', score)
  else
    free[r.dest] = free[r.dest] - 1
    claim(id, r.dest)
  end
end

local looked, seen = 0, 0
repeat
  -- Whatever is looked at is not due any more afterwards, so the next ones come first.
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'WITHSCORES', 'LIMIT', 0, math.max(count, 100))
  seen = #ids / 2
  for i = 1, #ids, 2 do
    if claimed >= count or bytes > max_bytes then return out end
    begin(ids[i], ids[i + 1])
  end
  looked = looked + seen
until seen == 0 or looked >= LOOK
if seen > 0 then out[2] = 1 end
return out
