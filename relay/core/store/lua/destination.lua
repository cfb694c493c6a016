-- What a destination of a client lets through: permits, parking, and the gate that closes where nobody answers.
-- A destination here is `client/host:port`, so that no client's dead receiver holds up another client's callbacks.
-- health:<destination> is there from the first attempt on:
--   n since   failures in a row, and when the first of them was      ok bad   last success, last failure
--   m         of those at the end of the row, how many brought no answer at all
--   till c    the gate is closed until then, for the c-th time in a row; `till` stays until something gets through
--   p         paused since: it has failed for so long that it is tried now and then only
-- wake: destinations by the end of their closing. paused: those that are. dests:<client>: all, by their last attempt.

local HEALTH_KEPT_MS = 30 * 86400000
-- A receiver that is well is noted as such this often, not with each callback.
local WELL_MS = 60000

local function destination_of(client, dest)
  return client .. '/' .. dest
end

-- A permit is a member of flight:<destination>, scored by the end of the lease that holds it, so that a killed worker's
-- permits come back by themselves. Its holder is in due:deliver, so it is begun again, and whatever becomes of it then
-- releases what is parked. Nothing stays parked while nobody is under way to release it, but where the gate is closed,
-- and then `wake` does, or where slots were wanting, and then `crowds` does (slots.lua).
-- After a closing there is one permit, until something gets through.
-- Returns how many are free, and until when the gate is closed, or nil.
local function permits_free(where, limit)
  local till = tonumber(redis.call('HGET', P .. 'health:' .. where, 'till') or nil)
  if till and till > NOW then return 0, till end
  local key = P .. 'flight:' .. where
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(NOW))
  return (till and 1 or limit) - redis.call('ZCARD', key), nil
end

-- What leaves its parked set keeps the permit that it left for until it is begun, for a while, so that permits that come
-- back before that release one job each.
local RESERVED_MS = 5000

local function unpark(where, limit)
  local count = permits_free(where, limit)
  if count < 1 then return end
  local popped = redis.call('ZPOPMIN', P .. 'parked:' .. where, count)
  for i = 1, #popped, 2 do
    redis.call('HSET', P .. popped[i], 'k', 'deliver')
    -- Due now, and not since it was parked: it must not go before other destinations' callbacks that wait their turn.
    redis.call('ZADD', P .. 'due:deliver', int(NOW), popped[i])
    redis.call('ZADD', P .. 'flight:' .. where, int(NOW + RESERVED_MS), popped[i])
  end
end

local function give_back(where, id, limit)
  redis.call('ZREM', P .. 'flight:' .. where, id)
  unpark(where, limit)
end

-- Open the gate: something got through, or somebody says so.
local function open_gate(where)
  redis.call('HDEL', P .. 'health:' .. where, 'n', 'since', 'm', 'till', 'c', 'p')
  redis.call('ZREM', P .. 'wake', where)
  redis.call('ZREM', P .. 'paused', where)
end

local function close_gate(where, key, till)
  redis.call('HSET', key, 'till', int(till))
  redis.call('ZADD', P .. 'wake', int(till), where)
end

-- Destinations that nothing was sent to for long are forgotten.
local function list_destination(client, dest, key)
  local list = P .. 'dests:' .. client
  redis.call('PEXPIRE', key, HEALTH_KEPT_MS)
  redis.call('ZADD', list, int(NOW), dest)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', int(NOW - HEALTH_KEPT_MS))
end

-- Take note of how an attempt ended: 'well', 'bad' (answered, and not well), 'silent' (no answer).
-- cfg: trip, silent attempts in a row that close the gate, 0 for never; closed, longest_closed, ms;
-- pause_after, ms of failures in a row after which a destination is paused; paused_try, ms between attempts then.
-- Returns the news, if there are any: 'unresponsive', 'paused', 'recovered'.
local function note_health(client, dest, how, cfg)
  local where = destination_of(client, dest)
  local key = P .. 'health:' .. where
  local h = redis.call('HMGET', key, 'n', 'since', 'm', 'till', 'c', 'p', 'ok')
  if how == 'well' then
    if not h[1] and h[7] and NOW - h[7] < WELL_MS then return nil end
    redis.call('HSET', key, 'ok', int(NOW))
    list_destination(client, dest, key)
    if h[1] then open_gate(where) end
    return (h[4] or h[6]) and 'recovered' or nil
  end
  local since = tonumber(h[2] or NOW)
  redis.call('HSET', key, 'n', int((h[1] or 0) + 1), 'since', int(since), 'bad', int(NOW))
  list_destination(client, dest, key)
  local till, news = tonumber(h[4] or nil), nil
  local silent = 0
  if how == 'silent' then
    silent = tonumber(h[3] or 0) + 1
  elseif till and not h[6] then
    -- It answers again, if badly: that costs nobody a slot for long.
    redis.call('HDEL', key, 'till', 'c')
    redis.call('ZREM', P .. 'wake', where)
    till = nil
  end
  redis.call('HSET', key, 'm', int(silent))
  if NOW - since >= cfg.pause_after then
    if not h[6] then
      redis.call('HSET', key, 'p', int(NOW))
      redis.call('ZADD', P .. 'paused', int(NOW), where)
      news = 'paused'
    end
    close_gate(where, key, NOW + cfg.paused_try)
  elseif cfg.trip > 0 and (silent >= cfg.trip or (till and silent > 0)) and not (till and till > NOW) then
    -- Attempts that were under way when it closed say nothing new.
    local times = tonumber(h[5] or 0)
    redis.call('HSET', key, 'c', int(times + 1))
    close_gate(where, key, NOW + math.min(cfg.closed * 2 ^ math.min(times, 20), cfg.longest_closed))
    news = times == 0 and 'unresponsive' or nil
  end
  return news
end
