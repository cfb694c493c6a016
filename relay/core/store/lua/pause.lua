-- All submits under one upstream key hold back. The later end wins, and its reason. ARGV: name length_ms reason
local key, till = P .. 'pause:' .. ARGV[1], NOW + ARGV[2]
local known = redis.call('HGET', key, 'until')
if not known or tonumber(known) < till then
  redis.call('HSET', key, 'until', int(till), 'why', ARGV[3])
  redis.call('PEXPIRE', key, int(ARGV[2] + 60000))
end
return 1
