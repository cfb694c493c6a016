-- Claim due polls: token and lease.
-- ARGV: count boot number lease_ms
-- Returns per job: id token client upstream_id submitted deadline failures cb
local count, boot, number, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local due = P .. 'due:poll'
local out = {int(NOW)}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'LIMIT', 0, count)) do
  local key = P .. id
  local r = redis.call('HMGET', key, 'c', 'up', 'st', 'dl', 'fails', 'cb', 's')
  if r[7] ~= 'pending' then
    redis.call('ZREM', due, id)
  else
    local token = boot .. '.' .. int(number)
    number = number + 1
    redis.call('HSET', key, 'tok', token, 'le', int(NOW + lease))
    redis.call('ZADD', due, int(NOW + lease), id)
    for _, v in ipairs({id, token, r[1], r[2], r[3], r[4], r[5] or '0', r[6]}) do out[#out + 1] = v end
  end
end
return out
