-- Claim due submits of one client: token, lease and the note that a submit is under way, before anything is sent.
-- `overdue` claims what has reached the end of its submit window or deadline instead, whatever gate is closed.
-- ARGV: count boot number lease_ms client overdue
-- Returns per job: id token spec created deadline amb submits last trace; amb is '' or, of what was begun before and never
-- accounted for, '0' where that is counted already
local count, boot, number, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local client, overdue = ARGV[5], ARGV[6] == '1'
local due = P .. 'due:submit:' .. client
local place = boot .. (overdue and ':overdue:' or ':submit:') .. client
local out, taken = {int(NOW)}, {}

local function read(id)
  return redis.call('HMGET', P .. id, 'spec', 't', 'dl', 'amb', 'sub', 'last', 's', 'le', 'tp')
end

local function claimed(id, token, r, amb, submits)
  hold(id, due, token, lease)
  for _, v in ipairs({id, token, r[1], r[2], r[3], amb, submits, r[6] or '', r[9] or ''}) do out[#out + 1] = v end
end

local BEFORE = {['2'] = '1', ['3'] = '0'}

local held = begun(place, boot, number)
if held then
  for _, one in ipairs(held) do
    local r = read(one[1])
    -- As it was before the claim.
    claimed(one[1], one[2], r, BEFORE[r[4]] or '', int(r[5] - 1))
  end
  return out
end
local ids = redis.call('ZRANGEBYSCORE', overdue and P .. 'ends:' .. client or due, '-inf', int(NOW), 'LIMIT', 0, count)
for _, id in ipairs(ids) do
  local r = read(id)
  if r[7] ~= 'queued' then
    redis.call('ZREM', due, id)
    redis.call('ZREM', P .. 'ends:' .. client, id)
  elseif not (overdue and r[8] and tonumber(r[8]) > NOW) then
    taken[#taken + 1] = id
    claimed(id, token_of(boot, number, #taken), r, r[4] or '', r[5] or '0')
    local is_news = r[4] and r[4] ~= '0'
    redis.call('HSET', P .. id, 'amb', (is_news and '2') or (r[4] and '3') or '1')
    redis.call('HINCRBY', P .. id, 'sub', 1)
    if is_news then redis.call('HINCRBY', P .. 'acct:' .. client, 'ambiguous', 1) end
  end
end
note_begun(place, number, taken)
return out
