-- Make leases longer. ARGV: lease_ms, then pairs id token. Returns 1 or 0 (lost) for each.
local out = {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local r = redis.call('HMGET', P .. id, 'tok', 'k', 'c', 'dest', 'oa')
  if r[1] == ARGV[i + 1] then
    local lease_end = int(NOW + ARGV[1])
    redis.call('HSET', P .. id, 'le', lease_end)
    redis.call('ZADD', due_key(r[2], r[3], r[4]), 'XX', lease_end, id)
    -- A permit that ran out and was not taken by anybody's new claim of this job is held again.
    if r[5] then redis.call('ZADD', P .. 'flight:' .. r[3] .. '/' .. r[4], lease_end, id) end
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out
