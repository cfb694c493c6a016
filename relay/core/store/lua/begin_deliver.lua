-- Claim due callbacks: token, lease, permit at the destination, number of the attempt.
-- An attempt that its worker never ended is closed here; where it was the schedule's last, the delivery is exhausted.
-- What its destination has no permit for is parked, once, until one comes back, or until its gate opens.
-- What has no slot, as slots are shared (slots.lua), is parked too, and its destination waits in line for one.
-- ARGV: count boot number lease_ms settings(a msgpack map, see save.lua) max_bytes
--   told(what the worker says of its slots, a msgpack map; '': it shares none)
-- Returns now, whether there is more to look at, then the attempts, each with how much its destination is in doubt.
local count, boot, number, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local cfg, max_bytes = cmsgpack.unpack(ARGV[5]), tonumber(ARGV[6])
local told = ARGV[7] ~= '' and cmsgpack.unpack(ARGV[7])
local all = told and total(told.of)
local due = P .. 'due:deliver'
local place = boot .. ':deliver'
local free, doubts, lined_up, out, taken, bytes = {}, {}, {}, {int(NOW), 0}, {}, 0
-- Parking looks at more than it claims, so that one destination's backlog does not hide the others; at about 10 ms' worth.
local LOOK = 1000
-- And this many queues for slots, and destinations in one of them.
local QUEUES, IN_LINE = 50, 200

local function cut_off(id, client, attempt, started)
  log_attempt(id, client, cjson.encode({number = tonumber(attempt), started_ms = tonumber(started),
    duration_ms = math.max(0, NOW - started), outcome = 'connection_error', error = 'worker stopped'}), false)
  redis.call('HDEL', P .. id, 'oa')
end

local function claimed(id, token, doubt)
  hold(id, due, token, lease)
  local attempt = attempt_of(id, token)
  attempt[5] = doubt
  bytes = bytes + result_bytes(attempt[4]) + #(attempt[3][3] or '')
  out[#out + 1] = attempt
end

local function doubt_at(where)
  if not doubts[where] then doubts[where] = doubt_of(where) end
  return doubts[where]
end

local function under_way_of(client)
  if not told.of[client] then told.of[client] = {0, 0, 0} end
  return told.of[client]
end

local function is_crowded(client, where)
  if not told then return false end
  return not has_slot(told.at[where] or 0, under_way_of(client), all, told.left, doubt_at(where), cfg)
end

local function has_room(client, doubt)
  return not told or room_for(under_way_of(client), all, told.left, doubt, cfg) > 0
end

local function take_slot(client, where)
  if not told then return end
  told.left, told.at[where] = told.left - 1, (told.at[where] or 0) + 1
  count_in(under_way_of(client), doubt_at(where))
  count_in(all, doubt_at(where))
end

local function wait_in_line(client, where)
  if lined_up[where] then return end
  line_up(client, where, doubt_at(where))
  lined_up[where] = true
end

local function permits_at(where)
  local till
  if not free[where] then free[where], till = permits_free(where, cfg.permits) end
  if till then redis.call('ZADD', P .. 'wake', int(till), where) end
  return free[where]
end

local function begin(id, score)
  local key = P .. id
  local f = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'dest', 'k', 'a', 'ga', 'oa')
  local r = {c = f[1], s = f[2], d = f[3], b = f[4] or '', dest = f[5], k = f[6]}
  if r.d ~= 'pending' and r.d ~= 'retrying' then
    redis.call('ZREM', due, id)
    return
  end
  if f[9] then cut_off(id, r.c, f[7], f[9]) end
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
  local has_permit = permits_at(where) >= 1
  if has_permit and not is_crowded(r.c, where) then
    free[where] = free[where] - 1
    take_slot(r.c, where)
    taken[#taken + 1] = id
    open_attempt(id, where, NOW + lease)
    claimed(id, token_of(boot, number, #taken), doubt_at(where))
  else
    redis.call('HDEL', key, 'tok', 'le')
    enter(id, r.c, r.dest, 'deliver', 'parked', score)
    if has_permit then wait_in_line(r.c, where) end
  end
end

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do
    local r = redis.call('HMGET', P .. one[1], 'c', 'dest')
    local where = destination_of(r[1], r[2])
    redis.call('ZADD', P .. 'flight:' .. where, int(NOW + lease), one[1])
    claimed(one[1], one[2], doubt_at(where))
  end
  return out
end

-- Destinations whose closing is over: one callback of each is tried.
for _, where in ipairs(redis.call('ZRANGEBYSCORE', P .. 'wake', '-inf', int(NOW), 'LIMIT', 0, 100)) do
  redis.call('ZREM', P .. 'wake', where)
  unpark(where, cfg.permits)
end

-- One callback of the first in line goes, if there is a slot for it.
-- Returns whether it had none, and whether more is parked that a permit is free for.
local function begin_first(client, where)
  local parked = P .. 'parked:' .. where
  if redis.call('EXISTS', parked) == 0 or permits_at(where) < 1 then return false, false end
  if is_crowded(client, where) then return true, true end
  local id = redis.call('ZPOPMIN', parked)[1]
  redis.call('HSET', P .. id, 'k', 'deliver')
  redis.call('ZADD', due, int(NOW), id)
  begin(id, NOW)
  return false, permits_at(where) >= 1 and redis.call('EXISTS', parked) == 1
end

-- Those who wait in one line for slots: each in turn, as long as there is one for their kind. Returns whether any of
-- them could be seen to.
local function begin_in_line(client, doubt, queue, last)
  local crowded, seen_to = {}, false
  for _ = 1, IN_LINE do
    if #taken >= last or bytes > max_bytes then break end
    if not has_room(client, doubt) then break end
    local where = redis.call('ZPOPMIN', queue)[1]
    if not where then break end
    lined_up[where] = nil
    local has_none, has_more = begin_first(client, where)
    if has_none then crowded[#crowded + 1] = where elseif has_more then wait_in_line(client, where) end
    seen_to = seen_to or not has_none
  end
  for _, where in ipairs(crowded) do wait_in_line(client, where) end
  return seen_to
end

-- Those who wait for slots come first, for they have waited; and get half of them, for others wait in `due`.
local function begin_crowds(last)
  local crowds = P .. 'crowds'
  local places = redis.call('ZRANGEBYSCORE', crowds, '-inf', int(NOW), 'WITHSCORES', 'LIMIT', 0, QUEUES)
  for i = 1, #places, 2 do
    if #taken >= last or bytes > max_bytes then break end
    local doubt, client = string.match(places[i], '^(%d):(.*)$')
    local queue = P .. 'crowd:' .. places[i]
    local seen_to = begin_in_line(client, tonumber(doubt), queue, last)
    if redis.call('EXISTS', queue) == 0 then
      redis.call('ZREM', crowds, places[i])
    elseif seen_to then
      redis.call('ZADD', crowds, int(NOW), places[i])
    elseif NOW - places[i + 1] >= ALL_LOOKED_MS then
      redis.call('ZADD', crowds, int(NOW + CROWD_MS), places[i])
    end
  end
end

-- Where a claim is for one, every other one, by chance.
begin_crowds(math.floor((count + TIME[2] % 2) / 2))

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
note_counted()
return out
