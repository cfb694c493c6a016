-- What the claims share. A claim is made once, however often it is asked for: `begun:<place>` has the number of the last
-- one that was made there, and what it took. A worker whose reply was lost asks again under the same number, and gets
-- the same; else a submit that was never sent would look as if it had been, and an attempt would be spent on nothing.
-- Numbers of a place come in order. One that comes after a higher one was on its way for long, and nobody waits for it.
local BEGUN_KEPT_MS = 600000

local function token_of(boot, number, i)
  return boot .. '.' .. int(number + i - 1)
end

-- Returns the ids that were claimed here under this number and are still under its tokens, and these; or nil where this
-- claim is still to be made.
local function begun(place, boot, number)
  local kept = redis.call('GET', P .. 'begun:' .. place)
  if not kept then return nil end
  local known, ids = string.match(kept, '^(%S+) (.*)$')
  if tonumber(known) < number then return nil end
  local held, i = {}, 0
  if tonumber(known) > number then return held end
  for id in string.gmatch(ids, '%S+') do
    i = i + 1
    local token = token_of(boot, number, i)
    if redis.call('HGET', P .. id, 'tok') == token then held[#held + 1] = {id, token} end
  end
  return held
end

local function note_begun(place, number, ids)
  redis.call('SET', P .. 'begun:' .. place, int(number) .. ' ' .. table.concat(ids, ' '), 'PX', BEGUN_KEPT_MS)
end

local function hold(id, due, token, lease)
  redis.call('HSET', P .. id, 'tok', token, 'le', int(NOW + lease))
  redis.call('ZADD', due, int(NOW + lease), id)
end
