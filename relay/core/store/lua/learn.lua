-- Let what was learned of a kind of job fade, add what was seen of it, and return all of it.
-- ARGV: kind keep(what the old weights are multiplied by) ttl_ms, then pairs field weight
local key = P .. 'latency:1:' .. ARGV[1]
local keep = tonumber(ARGV[2])
-- Less than this says nothing.
local LEAST = 1e-6
local weights = {}
local known = redis.call('HGETALL', key)
for i = 1, #known, 2 do weights[known[i]] = known[i + 1] * keep end
for i = 4, #ARGV, 2 do weights[ARGV[i]] = (weights[ARGV[i]] or 0) + ARGV[i + 1] end
if #ARGV > 3 then
  for field, weight in pairs(weights) do
    if weight < LEAST then
      redis.call('HDEL', key, field)
    else
      redis.call('HSET', key, field, string.format('%.7g', weight))
    end
  end
  redis.call('PEXPIRE', key, ARGV[3])
end
local out = {}
for field, weight in pairs(weights) do
  out[#out + 1] = field
  out[#out + 1] = string.format('%.7g', weight)
end
return out
