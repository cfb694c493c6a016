-- Accept one job: idempotency key, quota, rate, record, due entry and index, together or not at all.
-- Idempotent by the id, so that a lost reply can be asked for again.
-- ARGV: client id spec cb dest deadline_ms window_ms idem hash idem_ttl_ms max_unfinished per_minute kept not_after_ms
--   max_of_all coalesce(hash, or '') trace(or '')
-- Not after `not_after_ms`: a store that was stalled must not accept what its caller has given up and answered for.
local client, id, spec, cb, dest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local deadline, window, idem, hash = NOW + ARGV[6], NOW + ARGV[7], ARGV[8], ARGV[9]
local key = P .. id
local created = redis.call('HGET', key, 't')
if created then return {'accepted', created, int(NOW)} end
if NOW > tonumber(ARGV[14]) then return {'late', int(NOW)} end
local refused = admit(client, idem, hash, 1, ARGV[11], ARGV[12], ARGV[15], true)
if refused then return refused end
redis.call('HSET', key, 'c', client, 'spec', spec, 'cb', cb, 'dest', dest)
if ARGV[17] ~= '' then redis.call('HSET', key, 'tp', ARGV[17]) end
local follows = ARGV[16] ~= '' and join(id, client, ARGV[16])
start(id, client, NOW, math.min(deadline, window), deadline, follows, '', ARGV[13])
if idem ~= '' then
  redis.call('SET', P .. 'idem:' .. client .. ':' .. idem, hash .. ' ' .. id, 'PX', ARGV[10])
end
redis.call('INCR', P .. 'unfinished')
redis.call('SADD', P .. 'clients', client)
count(client, 'accepted', 1)
note_counted()
return {'accepted', int(NOW), int(NOW)}
