-- Claim due callbacks: token, lease, permit at the destination, number of the attempt.
-- An attempt that its worker never ended is closed here; where it was the schedule's last, the delivery is exhausted.
-- What its destination has no permit for is parked, once, until one comes back, or until its gate opens.
-- What would take more than its destination's share of the worker's slots is parked too, if another is under way there.
-- ARGV: count boot number lease_ms settings(a msgpack map, see save.lua) max_bytes
--   free slots of the worker, its attempts under way by destination(a msgpack map)
-- Returns now, whether there is more to look at, then the attempts.
local count, boot, number, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local cfg, max_bytes = cmsgpack.unpack(ARGV[5]), tonumber(ARGV[6])
local slots, mine = tonumber(ARGV[7]), cmsgpack.unpack(ARGV[8])
local due = P .. 'due:deliver'
local place = boot .. ':deliver'
local free, out, taken, bytes = {}, {int(NOW), 0}, {}, 0
-- Parking looks at more than it claims, so that one destination's backlog does not hide the others; at about 10 ms' worth.
local LOOK = 1000

local function cut_off(id, attempt, started)
  log_attempt(id, cjson.encode({number = tonumber(attempt), started_ms = tonumber(started),
    duration_ms = math.max(0, NOW - started), outcome = 'connection_error', error = 'worker stopped'}))
  redis.call('HDEL', P .. id, 'oa')
end

local function claimed(id, token)
  hold(id, due, token, lease)
  local attempt = attempt_of(id, token)
  bytes = bytes + result_bytes(attempt[4]) + #(attempt[3][3] or '')
  out[#out + 1] = attempt
end

-- The first one there is never crowded out, whatever the worker believes: nobody would release it.
local function is_crowded(where)
  return not has_slot(mine[where] or 0, slots - #taken, cfg) and redis.call('ZCARD', P .. 'flight:' .. where) > 0
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
  if free[where] < 1 or is_crowded(where) then
    redis.call('HDEL', key, 'tok', 'le')
    enter(id, r.c, r.dest, 'deliver', 'parked', score)
    if till then redis.call('ZADD', P .. 'wake', int(till), where) end
  else
    free[where] = free[where] - 1
    mine[where] = (mine[where] or 0) + 1
    taken[#taken + 1] = id
    open_attempt(id, where, NOW + lease)
    claimed(id, token_of(boot, number, #taken))
  end
end

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do
    local r = redis.call('HMGET', P .. one[1], 'c', 'dest')
    redis.call('ZADD', P .. 'flight:' .. destination_of(r[1], r[2]), int(NOW + lease), one[1])
    claimed(one[1], one[2])
  end
  return out
end

-- Destinations whose closing is over: one callback of each is tried.
for _, where in ipairs(redis.call('ZRANGEBYSCORE', P .. 'wake', '-inf', int(NOW), 'LIMIT', 0, 100)) do
  redis.call('ZREM', P .. 'wake', where)
  unpark(where, cfg.permits)
end

local looked, seen, full = 0, 0, false
repeat
  -- Whatever is looked at is not due any more afterwards, so the next ones come first.
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'WITHSCORES', 'LIMIT', 0, math.max(count, 100))
  seen = #ids / 2
  for i = 1, #ids, 2 do
    full = #taken >= count or bytes > max_bytes
    if full then break end
    begin(ids[i], ids[i + 1])
  end
  looked = looked + seen
until full or seen == 0 or looked >= LOOK
if seen > 0 and not full then out[2] = 1 end
note_begun(place, number, taken)
return out
