-- Claim due submits of one client: token, lease and the note that a submit is under way, before anything is sent.
-- `overdue` claims what has reached the end of its submit window or deadline instead, whatever gate is closed.
-- ARGV: client count boot number lease_ms overdue
-- Returns per job: id token spec created deadline amb submits last
local client, count, boot, number, lease, overdue = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6] == '1'
local due = P .. 'due:submit:' .. client
local ids = redis.call('ZRANGEBYSCORE', overdue and P .. 'ends:' .. client or due, '-inf', int(NOW), 'LIMIT', 0, count)
local out = {int(NOW)}
for _, id in ipairs(ids) do
  local key = P .. id
  local r = redis.call('HMGET', key, 'spec', 't', 'dl', 'amb', 'sub', 'last', 's', 'le')
  if r[7] ~= 'queued' then
    redis.call('ZREM', due, id)
    redis.call('ZREM', P .. 'ends:' .. client, id)
  elseif not (overdue and r[8] and tonumber(r[8]) > NOW) then
    local token = boot .. '.' .. int(number)
    number = number + 1
    redis.call('HSET', key, 'tok', token, 'le', int(NOW + lease), 'amb', r[4] and '2' or '1')
    redis.call('HINCRBY', key, 'sub', 1)
    if r[4] then redis.call('HINCRBY', P .. 'acct:' .. client, 'ambiguous', 1) end
    redis.call('ZADD', due, int(NOW + lease), id)
    for _, v in ipairs({id, token, r[1], r[2], r[3], r[4] or '', r[5] or '0', r[6] or ''}) do out[#out + 1] = v end
  end
end
return out
