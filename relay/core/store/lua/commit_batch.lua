-- Make a staged batch live: from here on it is accepted, and its jobs are enlisted by whoever comes first.
-- Idempotent by the id.
-- ARGV: client batch idem hash idem_ttl_ms max_unfinished per_minute kept enlist_grace_ms not_after_ms (see accept.lua)
--   max_of_all
local client, batch, idem, hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = P .. batch
local r = redis.call('HMGET', key, 'live', 'n', 'staged')
if r[1] == '1' then return {'accepted'} end
if NOW > tonumber(ARGV[10]) then return {'late', int(NOW)} end
if r[1] ~= '0' or r[2] ~= r[3] then return {'incomplete'} end
local refused = admit(client, idem, hash, tonumber(r[2]), ARGV[6], ARGV[7], ARGV[11], true)
if refused then return refused end
redis.call('HSET', key, 'live', '1', 't', int(NOW), 'k', 'enlist', 's:queued', r[2], 'd:waiting', r[2])
redis.call('ZREM', P .. 'due:purge', batch)
redis.call('ZADD', P .. 'due:enlist', int(NOW + ARGV[9]), batch)
redis.call('INCRBY', P .. 'unlisted:' .. client, r[2])
if idem ~= '' then
  redis.call('SET', P .. 'idem:' .. client .. ':' .. idem, hash .. ' ' .. batch, 'PX', ARGV[5])
end
redis.call('INCRBY', P .. 'unfinished', r[2])
redis.call('SADD', P .. 'clients', client)
redis.call('ZADD', P .. 'batches:' .. client, 0, batch)
count(client, 'accepted', tonumber(r[2]))
note_counted()
emit(client, ARGV[8], 'batch', batch, 'open', redis.call('HGET', key, 'd'), batch)
return {'accepted'}
