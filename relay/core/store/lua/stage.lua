-- Write some records of a batch that is not live yet: invisible, and purged at `expires_ms` unless it gets live.
-- Idempotent: a record is counted once.
-- ARGV: batch client expires_ms count first spec dest trace(of all, or ''), then per job: id spec cb dest deadline_ms
--   coalesce(hash, or '')
local batch, client = ARGV[1], ARGV[2]
local key = P .. batch
if redis.call('HSETNX', key, 'c', client) == 1 then
  redis.call('HSET', key, 'b', batch, 'live', '0', 'staged', '0', 'enl', '0', 'n', ARGV[4], 'o', ARGV[4],
    'left', ARGV[4], 'f', ARGV[5], 'k', 'purge', 'd', '', 'g', '0')
  if ARGV[6] ~= '' then redis.call('HSET', key, 'spec', ARGV[6], 'dest', ARGV[7], 'd', 'waiting') end
  redis.call('ZADD', P .. 'due:purge', int(NOW + ARGV[3]), batch)
end
local added, trace = 0, ARGV[8]
if trace ~= '' then redis.call('HSET', key, 'tp', trace) end
for i = 9, #ARGV, 6 do
  local job = P .. ARGV[i]
  if redis.call('HSETNX', job, 'c', client) == 1 then
    added = added + 1
    redis.call('HSET', job, 's', 'staged', 'd', '', 'k', 'staged', 'b', batch,
      'spec', ARGV[i + 1], 'cb', ARGV[i + 2], 'dest', ARGV[i + 3], 'dr', ARGV[i + 4])
    if ARGV[i + 5] ~= '' then redis.call('HSET', job, 'ch', ARGV[i + 5]) end
    if trace ~= '' then redis.call('HSET', job, 'tp', trace) end
  end
end
return redis.call('HINCRBY', key, 'staged', added)
