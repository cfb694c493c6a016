-- How many jobs there are. ARGV: since(ms), number of index sets, these (status, delivery), then clients.
-- Returns: jobs of all clients without outcome, workers seen since then, and per client its jobs in each of the sets, and
-- those of its live batches that are not enlisted yet.
local sets = tonumber(ARGV[2])
local out = {
  tonumber(redis.call('GET', P .. 'unfinished') or 0),
  redis.call('ZCOUNT', P .. 'workers', int(NOW - ARGV[1]), '+inf'),
}
for i = 3 + 2 * sets, #ARGV do
  local counts = {}
  for j = 3, 1 + 2 * sets, 2 do
    counts[#counts + 1] = redis.call('ZCARD', index_key(ARGV[i], ARGV[j], ARGV[j + 1]))
  end
  counts[#counts + 1] = tonumber(redis.call('GET', P .. 'unlisted:' .. ARGV[i]) or 0)
  out[#out + 1] = counts
end
return out
