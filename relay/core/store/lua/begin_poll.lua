-- Claim due polls: token and lease.
-- ARGV: count boot number lease_ms
-- Returns per job: id token client upstream_id submitted deadline failures cb
local count, boot, number, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local due = P .. 'due:poll'
local place = boot .. ':poll'
local out, taken = {int(NOW)}, {}

local function read(id)
  return redis.call('HMGET', P .. id, 'c', 'up', 'st', 'dl', 'fails', 'cb', 's')
end

local function claimed(id, token, r)
  hold(id, due, token, lease)
  for _, v in ipairs({id, token, r[1], r[2], r[3], r[4], r[5] or '0', r[6]}) do out[#out + 1] = v end
end

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do claimed(one[1], one[2], read(one[1])) end
  return out
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(NOW), 'LIMIT', 0, count)) do
  local r = read(id)
  if r[7] ~= 'pending' then
    redis.call('ZREM', due, id)
  else
    taken[#taken + 1] = id
    claimed(id, token_of(boot, number, #taken), r)
  end
end
note_begun(place, number, taken)
return out
