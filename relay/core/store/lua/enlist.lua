-- Make some jobs of a live batch live jobs. Returns how far the batch is enlisted now, -1 where it is not live.
-- ARGV: batch position window_ms kept, then ids; position -1 enlists single jobs out of turn.
local function enlist(id, batch, committed, window_ms, kept)
  local r = redis.call('HMGET', P .. id, 's', 'c', 'dr', 'ch')
  if r[1] ~= 'staged' then return end
  -- The deadline counts from the commit of the batch.
  local client, deadline = r[2], committed + r[3]
  local follows = r[4] and join(id, client, r[4])
  start(id, client, committed, math.min(deadline, committed + window_ms), deadline, follows, batch, kept)
  redis.call('DECR', P .. 'unlisted:' .. client)
end

local batch, position = ARGV[1], tonumber(ARGV[2])
local key = P .. batch
local r = redis.call('HMGET', key, 'live', 'enl', 'n', 't')
if r[1] ~= '1' then return -1 end
local done = tonumber(r[2])
if position >= 0 and position ~= done then return done end
for i = 5, #ARGV do enlist(ARGV[i], batch, tonumber(r[4]), tonumber(ARGV[3]), ARGV[4]) end
if position < 0 then return done end
done = done + #ARGV - 4
redis.call('HSET', key, 'enl', int(done))
if done >= tonumber(r[3]) then
  redis.call('ZREM', P .. 'due:enlist', batch)
  if redis.call('HGET', key, 'k') == 'enlist' then redis.call('HSET', key, 'k', '') end
end
return done
