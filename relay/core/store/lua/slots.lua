-- How clients and destinations share the slots that a worker has for callbacks.
-- A worker tells `left`, its free slots, and what it has under way: `at`, by destination, and `of`, by client. Those are
-- three numbers: all, those in doubt, and of these the silent ones, as they stood when the attempts were begun.
-- crowd:<doubt>:<client>: destinations whose callbacks are parked for want of slots, by when they got there.
-- crowds: these queues, by when they are looked at next.

-- What one client may have of slots that nobody else uses; and what those in doubt may have together of all slots, and
-- the silent ones of these. So a part is kept for what can be expected to be quick.
local MOST = 0.8
-- An answer vouches for a destination this long.
local VOUCHED_MS = 3600000
-- A queue is looked at this often, whatever happens, and sooner where one of the client's attempts has ended.
local CROWD_MS = 1000
-- Other workers look about this often, and may have the slots that one of them has not.
local ALL_LOOKED_MS = 200

local function most_of(size)
  return math.max(1, math.floor(size * MOST))
end

local function part(free, size)
  return math.max(0, math.min(1, free / size))
end

-- The less the others leave, the fewer, by the square of what they leave. So however many hang at the same time, some
-- slots stay free, and the next one finds one.
local function squared(free, size)
  return part(free, size) ^ 2
end

-- How much a destination is in doubt. 0: its last attempt was answered, not long ago. 2: that had no answer. 1: else.
local function doubt_of(where)
  local h = redis.call('HMGET', P .. 'health:' .. where, 'm', 'n', 'bad', 'ok')
  if tonumber(h[1] or 0) > 0 then return 2 end
  local answered = math.max(h[2] and tonumber(h[3] or 0) or 0, tonumber(h[4] or 0))
  return NOW - answered < VOUCHED_MS and 0 or 1
end

local function total(of)
  local all = {0, 0, 0}
  for _, counts in pairs(of) do
    for i = 1, 3 do all[i] = all[i] + counts[i] end
  end
  return all
end

-- How many more attempts a client may begin at destinations of this doubt; none where that is not above 0. It has
-- `mine` and all clients have `all`. One is always allowed where there is a slot for its kind. Those at destinations that
-- answer are quick, so of all slots it may have a plain part of what the others leave.
-- Also returns what it could have of its kind if it were alone.
local function room_for(mine, all, left, doubt, cfg)
  local room, size, most = left, cfg.slots, nil
  for i = 1, doubt + 1 do
    local free = i == 1 and left or size - all[i]
    most = most_of(size)
    room = math.min(room, free, math.max(1, most * (i == 1 and part or squared)(free + mine[i], size)) - mine[i])
    size = most
  end
  return room, most
end

-- How many attempts a destination may have under way at a worker that has `mine` there: as many as it has permits, at
-- most a fifth of the slots, and fewer the less is left. What is in doubt shares what its client may have of that kind.
local function share(mine, left, doubt, room, most, cfg)
  local limit = math.min(cfg.permits, math.max(1, math.floor(cfg.slots / 5)))
  return limit * (doubt == 0 and squared(left + mine, cfg.slots) or squared(room + mine, most))
end

-- Whether there is a slot for one more.
local function has_slot(at, mine, all, left, doubt, cfg)
  local room, most = room_for(mine, all, left, doubt, cfg)
  return room > 0 and at < math.max(1, share(at, left, doubt, room, most, cfg))
end

local function count_in(counts, doubt)
  for i = 1, doubt + 1 do counts[i] = counts[i] + 1 end
end

-- What is parked at `where` will be looked at again, whatever becomes of the attempts there.
local function line_up(client, where, doubt)
  local place = doubt .. ':' .. client
  redis.call('ZADD', P .. 'crowd:' .. place, 'NX', int(NOW), where)
  redis.call('ZADD', P .. 'crowds', 'NX', int(NOW + CROWD_MS), place)
end

-- One of the client's attempts has ended: those who wait may have its slot.
local function call_crowd(client)
  local now = int(NOW)
  redis.call('ZADD', P .. 'crowds', 'XX', 'LT', now, '0:' .. client, now, '1:' .. client, now, '2:' .. client)
end
