-- What every script shares: names of keys, the clock, and the one way to change a job's state.
-- KEYS[1] is the prefix of every key. Fields of a record (a hash under prefix + id):
--   c client   s status   d delivery status   b batch   t created   dl deadline   dr deadline, relative
--   k the due set it is in (submit, poll, deliver, parked, purge; staged before its batch is live)
--   tok, le    token and end of the lease      nn  nonce of the last save      on  nonces of orphans' saves
--   spec       what was asked for, as JSON     cb  events asked for and payload, short form     dest destination
--   tp         the trace that its asking belongs to, where it belongs to one
--   amb        a submit was begun and not accounted for: 1; one before it as well: 2; and that one was counted when it was
--              handed on: 3; nothing but what was handed on and counted: 0
--   sub, po    submits and polls      fails, last   counter and last trouble
--   up upstream id   st submitted   kd what its latency is learned under   sn age when last seen pending   cr credits   ct completed   ec, em error   ru result URL
--   g generation   a attempts begun, in all   ga in this generation   oa start of the open attempt
--   nx next attempt   dt delivered
-- A batch has c t b(= its id) d k tok le nn g a ga oa nx dt ct and: n count, f first id, live, staged, enl enlisted,
-- o open jobs, left jobs not purged, s:<status> and d:<status> counters, final (those at the end).

local P = KEYS[1]
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local OUTCOME = {done = true, failed = true, timed_out = true, cancelled = true}

local function int(value)
  -- Lua would print large numbers in exponent form.
  return string.format('%.0f', value)
end

local function is_batch(id)
  return string.sub(id, 1, 6) == 'batch_'
end

-- What this script has seen happen, by client. A script that changes a state, or counts otherwise, ends with
-- `note_counted` (series.lua).
local counted = {}

local function count(client, what, times)
  local counts = counted[client]
  if not counts then
    counts = {}
    counted[client] = counts
  end
  counts[what] = (counts[what] or 0) + times
end

local function due_key(kind, client, dest)
  if kind == 'submit' then return P .. 'due:submit:' .. client end
  if kind == 'parked' then return P .. 'parked:' .. client .. '/' .. dest end
  return P .. 'due:' .. kind
end

local function index_key(client, status, delivery)
  return P .. 'ix:' .. client .. ':' .. status .. ':' .. delivery
end

local function emit(client, kept, kind, id, status, delivery, batch)
  redis.call('XADD', P .. 'ev:' .. client, 'MAXLEN', '~', kept, '*',
    'k', kind, 'i', id, 's', status, 'd', delivery, 'b', batch, 't', int(NOW))
end

-- Put `id` into the due set `kind` at `at`, out of the one it was in.
local function enter(id, client, dest, from, kind, at)
  if from and from ~= kind and from ~= '' then
    redis.call('ZREM', due_key(from, client, dest), id)
  end
  redis.call('ZADD', due_key(kind, client, dest), int(at), id)
  if from ~= kind then redis.call('HSET', P .. id, 'k', kind) end
end

local function count_in_batch(batch, field, by)
  if batch and batch ~= '' then redis.call('HINCRBY', P .. batch, field, by) end
end

-- The last job of a batch has its outcome: the batch's own callback is due, if there is one.
-- The counters as they are now are what it tells, in every attempt: one event, one body.
local function complete_batch(batch, kept, ttl_ms, first_delay_ms)
  local r = redis.call('HMGET', P .. batch, 'c', 'spec', 'dest')
  local flat, counters = redis.call('HGETALL', P .. batch), {}
  for i = 1, #flat, 2 do
    if string.find(flat[i], '^[sd]:') then counters[flat[i]] = tonumber(flat[i + 1]) end
  end
  redis.call('HSET', P .. batch, 'ct', int(NOW), 'final', cjson.encode(counters))
  if r[2] then
    redis.call('HSET', P .. batch, 'd', 'pending', 'k', 'deliver', 'nx', int(NOW + first_delay_ms))
    redis.call('ZADD', P .. 'due:deliver', int(NOW + first_delay_ms), batch)
  else
    redis.call('HSET', P .. batch, 'k', 'purge')
    redis.call('ZADD', P .. 'due:purge', int(NOW + ttl_ms), batch)
  end
  emit(r[1], kept, 'batch', batch, 'completed', r[2] and 'pending' or '', batch)
end

-- A delivery that was on its way has ended.
local function count_ended(client, delivery)
  if delivery == 'delivered' or delivery == 'exhausted' or delivery == 'gone' then count(client, delivery, 1) end
end

-- The one place where a status or delivery status changes: index, counters of the batch, event, series.
local function move(id, client, batch, s0, d0, s1, d1, cfg)
  if s0 == s1 and d0 == d1 then return end
  redis.call('HSET', P .. id, 's', s1, 'd', d1)
  redis.call('ZREM', index_key(client, s0, d0), id)
  redis.call('ZADD', index_key(client, s1, d1), 0, id)
  emit(client, cfg.kept, 'job', id, s1, d1, batch or '')
  if OUTCOME[s1] and not OUTCOME[s0] then
    redis.call('DECR', P .. 'unfinished')
    count(client, s1, 1)
  end
  if d0 ~= d1 then count_ended(client, d1) end
  if batch and batch ~= '' and redis.call('EXISTS', P .. batch) == 1 then
    if s0 ~= s1 then
      count_in_batch(batch, 's:' .. s0, -1)
      count_in_batch(batch, 's:' .. s1, 1)
    end
    if d0 ~= d1 then
      count_in_batch(batch, 'd:' .. d0, -1)
      count_in_batch(batch, 'd:' .. d1, 1)
    end
    if OUTCOME[s1] and not OUTCOME[s0] and redis.call('HINCRBY', P .. batch, 'o', -1) == 0 then
      complete_batch(batch, cfg.kept, cfg.ttl, cfg.first)
    end
  end
end

local function unfinished(client)
  return redis.call('ZCARD', index_key(client, 'queued', 'waiting'))
    + redis.call('ZCARD', index_key(client, 'pending', 'waiting'))
    + tonumber(redis.call('GET', P .. 'unlisted:' .. client) or 0)
end

-- A job comes into being: record complete but for its states. One that follows another waits for that in due:poll.
local function start(id, client, at, ends, deadline, follows, batch, kept)
  redis.call('HSET', P .. id, 's', 'queued', 'd', 'waiting', 'k', follows and 'poll' or 'submit', 't', int(at),
    'dl', int(deadline))
  if follows then
    -- It looks at once whether the upstream has its leader's job already.
    redis.call('ZADD', P .. 'due:poll', int(NOW), id)
  else
    redis.call('ZADD', P .. 'due:submit:' .. client, int(at), id)
    redis.call('ZADD', P .. 'ends:' .. client, int(ends), id)
  end
  redis.call('ZADD', index_key(client, 'queued', 'waiting'), 0, id)
  emit(client, kept, 'job', id, 'queued', 'waiting', batch)
end

-- Admission: idempotency key, quota, rate. Returns nil when there is nothing against it.
-- `take` says whether a token of the rate is taken (it is only looked at otherwise).
local function admit(client, idem, hash, jobs, max_unfinished, per_minute, max_of_all, take)
  if idem ~= '' then
    local name = P .. 'idem:' .. client .. ':' .. idem
    local known = redis.call('GET', name)
    if known then
      local known_hash, known_id = string.match(known, '^(%S+) (%S+)$')
      if known_hash ~= hash then return {'reused'} end
      if redis.call('EXISTS', P .. known_id) == 0 then return {'expired'} end
      -- Writes what is there, so that a caller who waits for the sync of its writes waits for the first request's too.
      if take then redis.call('PEXPIREAT', name, redis.call('PEXPIRETIME', name)) end
      return {'replayed', known_id}
    end
  end
  if unfinished(client) + jobs > tonumber(max_unfinished) then return {'full'} end
  if tonumber(redis.call('GET', P .. 'unfinished') or 0) + jobs > tonumber(max_of_all) then return {'crowded'} end
  -- A token bucket that holds one minute's worth.
  local key, capacity = P .. 'rate:' .. client, tonumber(per_minute)
  local bucket = redis.call('HMGET', key, 'n', 't')
  local tokens = capacity
  if bucket[1] then
    local elapsed = math.max(0, NOW - bucket[2])
    tokens = math.min(capacity, bucket[1] + elapsed * capacity / 60000)
  end
  if tokens < 1 then
    return {'rate', int(math.ceil((1 - tokens) * 60 / capacity))}
  end
  if take then
    redis.call('HSET', key, 'n', string.format('%.6f', tokens - 1), 't', int(NOW))
    redis.call('PEXPIRE', key, 120000)
  end
  return nil
end
