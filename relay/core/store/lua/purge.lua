-- Delete what has been kept long enough. ARGV: count later_ms
-- Returns how many, then triples (batch, first id, count) of batches that never got live: they cannot any more, and the
-- caller drops their records, which only it can name.
local out = {int(0)}

-- A result is kept as long as any job that shares it.
local function drop_result(id)
  local owner = redis.call('HGET', P .. id, 'ro')
  if not owner then
    if redis.call('EXISTS', P .. 'refs:' .. id) == 0 then redis.call('UNLINK', P .. 'res:' .. id) end
  elseif redis.call('DECR', P .. 'refs:' .. owner) <= 0 then
    redis.call('DEL', P .. 'refs:' .. owner)
    if redis.call('EXISTS', P .. owner) == 0 then redis.call('UNLINK', P .. 'res:' .. owner) end
  end
end

local purged = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due:purge', '-inf', int(NOW), 'LIMIT', 0, ARGV[1])) do
  local key = P .. id
  local r = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'live', 'left', 'f', 'n', 'co')
  local done = true
  if is_batch(id) and r[1] then
    if r[5] ~= '1' then
      for _, v in ipairs({id, r[7], r[8]}) do out[#out + 1] = v end
      redis.call('HSET', key, 'live', 'x')
      redis.call('ZADD', P .. 'due:purge', int(NOW + ARGV[2]), id)
      done = false
    elseif tonumber(r[6]) > 0 then
      redis.call('ZADD', P .. 'due:purge', int(NOW + ARGV[2]), id)
      done = false
    end
  elseif r[1] and is_followed(id, r[9]) then
    -- Its followers have not all taken its outcome yet.
    redis.call('ZADD', P .. 'due:purge', int(NOW + ARGV[2]), id)
    done = false
  elseif r[1] then
    redis.call('ZREM', index_key(r[1], r[2], r[3]), id)
    if r[4] and redis.call('EXISTS', P .. r[4]) == 1 then redis.call('HINCRBY', P .. r[4], 'left', -1) end
  end
  if done then
    purged = purged + 1
    redis.call('ZREM', P .. 'due:purge', id)
    if is_batch(id) then
      -- One whose jobs were all enlisted out of turn may still wait to be enlisted.
      redis.call('ZREM', P .. 'due:enlist', id)
      if r[1] then redis.call('ZREM', P .. 'batches:' .. r[1], id) end
    end
    drop_result(id)
    redis.call('UNLINK', key, P .. 'att:' .. id)
  end
end
out[1] = int(purged)
return out
