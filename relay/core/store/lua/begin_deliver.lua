-- Claim due callbacks: token, lease, permit at the destination, number of the attempt.
-- An attempt that its worker never ended is closed here; where it was the schedule's last, the delivery is exhausted.
-- What its destination has no permit for is parked, once, until one comes back, or until its gate opens.
-- ARGV: settings(a msgpack map, see save.lua) count boot number max_bytes
-- Returns now, whether there is more to look at, then the attempts.
local cfg = cmsgpack.unpack(ARGV[1])
local count, boot, number, max_bytes = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local due = P .. 'due:deliver'
local free, out, claimed, bytes = {}, {int(NOW), 0}, 0, 0
-- Parking looks at more than it claims, so that one destination's backlog does not hide the others; at about 10 ms' worth.
local LOOK = 1000

local function cut_off(id, attempt, started)
  log_attempt(id, cjson.encode({number = tonumber(attempt), started_ms = tonumber(started),
    duration_ms = math.max(0, NOW - started), outcome = 'connection_error', error = 'worker stopped'}))
  redis.call('HDEL', P .. id, 'oa')
end

local function claim(id, where)
  local token = boot .. '.' .. int(number)
  number = number + 1
  redis.call('HSET', P .. id, 'tok', token, 'le', int(NOW + cfg.lease))
  redis.call('ZADD', due, int(NOW + cfg.lease), id)
  open_attempt(id, where, NOW + cfg.lease)
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
  local where = destination_of(r.c, r.dest)
  -- Its own permit: of the attempt that was cut off, or kept for it when it was unparked.
  if redis.call('ZREM', P .. 'flight:' .. where, id) == 1 then free[where] = nil end
  if tonumber(f[8] or 0) >= cfg.attempts then
    end_delivery(id, r, 'exhausted', cfg.undelivered, cfg)
    unpark(where, cfg.permits)
    free[where] = nil
    return
  end
  if f[9] then set_delivery(id, r, 'retrying', cfg) end
  local till
  if not free[where] then free[where], till = permits_free(where, cfg.permits) end
  if free[where] < 1 then
    redis.call('HDEL', key, 'tok', 'le')
    enter(id, r.c, r.dest, 'deliver', 'parked', score)
    if till then redis.call('ZADD', P .. 'wake', int(till), where) end
  else
    free[where] = free[where] - 1
    claim(id, where)
  end
end

-- Destinations whose closing is over: one callback of each is tried.
for _, where in ipairs(redis.call('ZRANGEBYSCORE', P .. 'wake', '-inf', int(NOW), 'LIMIT', 0, 100)) do
  redis.call('ZREM', P .. 'wake', where)
  unpark(where, cfg.permits)
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
