-- Start a new generation of ended deliveries. A lease that still runs is left alone: its save will find the generation
-- changed. With a filter, what does not match is passed over.
-- ARGV: client kept first_ms delivery since_ms until_ms host, then ids. `delivery` '' takes any ended one.
-- Returns how many; -1 for a single id that is missing, -2 for one that cannot be redelivered.
local client, first, delivery, host = ARGV[1], tonumber(ARGV[3]), ARGV[4], ARGV[7]
local cfg = {kept = ARGV[2]}
local since, till = tonumber(ARGV[5]) or -math.huge, tonumber(ARGV[6]) or math.huge
local ENDED = {delivered = true, exhausted = true, gone = true, skipped = true}
local count = 0
for i = 8, #ARGV do
  local id = ARGV[i]
  local key = P .. id
  local f = redis.call('HMGET', key, 'c', 's', 'd', 'b', 'dest', 'k', 'ct', 'live', 'tok', 'le')
  local single = delivery == ''
  if f[1] ~= client or f[2] == 'staged' or (f[8] and f[8] ~= '1') then
    if single then return -1 end
  elseif not ENDED[f[3]] or f[2] == 'cancelled' then
    if single then return -2 end
  else
    local ended = tonumber(f[7])
    local f_host = f[5] and string.match(f[5], '^%[?(.-)%]?:%d+$')
    if single or (f[3] == delivery and ended >= since and ended < till and (host == '' or host == f_host)) then
      redis.call('HINCRBY', key, 'g', 1)
      redis.call('HSET', key, 'ga', '0', 'nx', int(NOW + first))
      redis.call('HDEL', key, 'dt')
      if is_batch(id) then
        redis.call('HSET', key, 'd', 'pending')
        emit(client, cfg.kept, 'batch', id, 'completed', 'pending', id)
      else
        move(id, client, f[4] or '', f[2], f[3], f[2], 'pending', cfg)
      end
      local at = NOW + first
      if f[9] and tonumber(f[10] or 0) > NOW then at = tonumber(f[10]) end
      enter(id, client, f[5], f[6], 'deliver', at)
      count = count + 1
    end
  end
end
return count
