-- Drop records of a batch that never got live, and with the last of them the batch. ARGV: batch last(0 or 1), then ids
for i = 3, #ARGV do
  if redis.call('HGET', P .. ARGV[i], 's') == 'staged' then redis.call('UNLINK', P .. ARGV[i]) end
end
if ARGV[2] == '1' then
  redis.call('ZREM', P .. 'due:purge', ARGV[1])
  redis.call('UNLINK', P .. ARGV[1])
end
return 1
