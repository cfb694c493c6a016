-- Give back what was claimed and not begun, as if it had never been claimed: nothing was sent.
-- ARGV: permits, then per job: id token delay_ms patient(1: its submit window does not matter any more)
for i = 2, #ARGV, 4 do
  local id = ARGV[i]
  local key = P .. id
  local r = redis.call('HMGET', key, 'tok', 'k', 'c', 'dest', 'dl', 'amb', 's', 'co')
  if r[1] == ARGV[i + 1] then
    redis.call('HDEL', key, 'tok', 'le')
    if r[2] == 'submit' then
      redis.call('HINCRBY', key, 'sub', -1)
      if r[6] == '1' then
        redis.call('HDEL', key, 'amb')
      elseif r[6] == '3' then
        redis.call('HSET', key, 'amb', '0')
      else
        -- The note was there before: it was counted when it was found, and will be found again.
        redis.call('HSET', key, 'amb', '1')
        redis.call('HINCRBY', P .. 'acct:' .. r[3], 'ambiguous', -1)
      end
      if ARGV[i + 3] == '1' then redis.call('ZADD', P .. 'ends:' .. r[3], 'XX', r[5], id) end
    elseif r[2] == 'deliver' then
      redis.call('HINCRBY', key, 'a', -1)
      redis.call('HINCRBY', key, 'ga', -1)
      redis.call('HDEL', key, 'oa')
      give_back(destination_of(r[3], r[4]), id, tonumber(ARGV[1]))
    end
    redis.call('ZADD', due_key(r[2], r[3], r[4]), int(NOW + ARGV[i + 2]), id)
  elseif r[7] == 'cancelled' and is_under_way(id, r[8], ARGV[i + 1]) then
    -- The submit that its followers wait for was never sent.
    redis.call('HDEL', P .. 'grp:' .. r[8], 'fl', 'ft')
    wake(r[8])
  end
end
return 1
