-- Make leases longer. ARGV: lease_ms, then pairs id token. Returns 1 or 0 (lost) for each.
-- The submit of a leader that was cancelled has none; those that follow it wait longer (coalesce.lua).
local out = {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local r = redis.call('HMGET', P .. id, 'tok', 'k', 'c', 'dest', 'oa', 's', 'co')
  if r[1] == ARGV[i + 1] then
    local lease_end = int(NOW + ARGV[1])
    redis.call('HSET', P .. id, 'le', lease_end)
    redis.call('ZADD', due_key(r[2], r[3], r[4]), 'XX', lease_end, id)
    -- A permit that ran out and was not taken by anybody's new claim of this job is held again.
    if r[5] then redis.call('ZADD', P .. 'flight:' .. r[3] .. '/' .. r[4], lease_end, id) end
    out[#out + 1] = 1
  elseif r[6] == 'cancelled' and is_under_way(id, r[7], ARGV[i + 1]) then
    redis.call('HSET', P .. 'grp:' .. r[7], 'fl', int(NOW + ARGV[1]))
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out
