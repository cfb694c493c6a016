-- What begin_deliver and a save that carries on share: opening an attempt.

-- The fields that the callback is built from; the result travels beside them.
local FIELDS = {'c', 's', 'spec', 't', 'dl', 'b', 'up', 'st', 'ct', 'ec', 'em', 'ru', 'g', 'a', 'ga', 'n', 'final', 'tp', 'ro'}

local function open_attempt(id, where, lease_end)
  local key = P .. id
  redis.call('HINCRBY', key, 'a', 1)
  redis.call('HINCRBY', key, 'ga', 1)
  redis.call('HSET', key, 'oa', int(NOW))
  redis.call('ZADD', P .. 'flight:' .. where, int(lease_end), id)
end

local function log_attempt(id, client, entry, got_through)
  count(client, 'attempts', 1)
  if not got_through then count(client, 'attempts_failed', 1) end
  local key = P .. 'att:' .. id
  redis.call('RPUSH', key, entry)
  redis.call('LTRIM', key, -200, -1)
end

-- All that the worker needs for one attempt: token, the fields, the result.
local function attempt_of(id, token)
  local row = redis.call('HMGET', P .. id, unpack(FIELDS))
  return {id, token, row, redis.call('GET', P .. 'res:' .. (row[#FIELDS] or id))}
end

-- What a stored result takes in the worker's memory: one that was compressed begins with `z` and its length.
local function result_bytes(stored)
  if not stored then return 0 end
  if string.sub(stored, 1, 1) ~= 'z' then return #stored end
  return (struct.unpack('>I4', string.sub(stored, 2, 5)))
end

-- The delivery status changes, and nothing else.
local function set_delivery(id, r, delivery, cfg)
  if delivery == r.d then return end
  if is_batch(id) then
    redis.call('HSET', P .. id, 'd', delivery)
    count_ended(r.c, delivery)
    emit(r.c, cfg.kept, 'batch', id, 'completed', delivery, id)
  else
    move(id, r.c, r.b, r.s, r.d, r.s, delivery, cfg)
  end
end

-- A delivery has ended: the record is kept for a while, then purged.
local function end_delivery(id, r, delivery, ttl, cfg)
  set_delivery(id, r, delivery, cfg)
  redis.call('HDEL', P .. id, 'nx', 'tok', 'le', 'oa')
  enter(id, r.c, r.dest, r.k, 'purge', NOW + ttl)
end
