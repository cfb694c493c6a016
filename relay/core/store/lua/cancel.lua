-- Cancel a job without an outcome: its token is void, and it leaves the due sets.
-- ARGV: client id kept ttl_ms first_ms
local client, id = ARGV[1], ARGV[2]
local key = P .. id
local cfg = {kept = ARGV[3], ttl = tonumber(ARGV[4]), first = tonumber(ARGV[5])}
local r = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'k', 'dest', 'co', 'amb', 'le', 'tok')
if r[1] ~= client or r[2] == 'staged' then return 'missing' end
if r[2] == 'cancelled' then return 'cancelled' end
if OUTCOME[r[2]] then return 'conflict' end
redis.call('HDEL', key, 'tok', 'le')
redis.call('ZREM', P .. 'ends:' .. client, id)
redis.call('HSET', key, 'ct', int(NOW))
move(id, client, r[4] or '', r[2], r[3], 'cancelled', 'skipped', cfg)
enter(id, client, r[6], r[5], 'purge', NOW + cfg.ttl)
if r[7] then
  if r[2] == 'queued' and r[8] and is_followed(id, r[7]) then
    local group = P .. 'grp:' .. r[7]
    local under_way = r[9] and tonumber(r[9]) > NOW
    -- A submit that is under way may still bring what its followers can use; one that was is not accounted for. What is
    -- known of those before it was counted when this one was begun, or when it was handed on.
    if under_way then redis.call('HSET', group, 'fl', r[9], 'ft', r[10]) end
    if r[8] ~= '1' or not under_way then
      redis.call('HSET', group, 'amb', (under_way or r[8] == '0') and '0' or '1')
    end
  end
  changed_in_group(id, r[7], client, 'cancelled')
end
note_counted()
return 'cancelled'
