-- Open the gate of a destination by hand, and forget its failures. ARGV: client dest
-- Returns 1, or 0 where the client has no such destination. What is parked is due at the next look.
local where = destination_of(ARGV[1], ARGV[2])
if not redis.call('ZSCORE', P .. 'dests:' .. ARGV[1], ARGV[2]) then return 0 end
open_gate(where)
redis.call('ZADD', P .. 'wake', int(NOW), where)
return 1
