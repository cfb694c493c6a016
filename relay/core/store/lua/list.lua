-- A page of a client's jobs, newest first: the merge of the index sets asked for.
-- ARGV: client limit max min fields(number) field..., then pairs status delivery
-- `max` and `min` are bounds of ZREVRANGEBYLEX. Returns pairs id row.
local client, limit = ARGV[1], tonumber(ARGV[2])
local fields, ids = {}, {}
for i = 6, 5 + ARGV[5] do fields[#fields + 1] = ARGV[i] end
for i = 6 + ARGV[5], #ARGV, 2 do
  local found = redis.call('ZREVRANGEBYLEX', index_key(client, ARGV[i], ARGV[i + 1]), ARGV[3], ARGV[4], 'LIMIT', 0, limit)
  for _, id in ipairs(found) do ids[#ids + 1] = id end
end
table.sort(ids, function(x, y) return x > y end)
local out = {}
for i = 1, math.min(limit, #ids) do
  out[#out + 1] = ids[i]
  out[#out + 1] = redis.call('HMGET', P .. ids[i], unpack(fields))
end
return out
