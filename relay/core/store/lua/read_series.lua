-- A client's counters. ARGV: client kind first last (numbers of keys, see series.lua)
-- Returns how to read them, {names, numbers of a slot, of these before the histogram, end of its first bucket, growth},
-- then the strings, '' where there is none.
local out = {{NAMES, SLOT, FIRST_BUCKET, BUCKET_MS, tostring(GROWTH)}}
for number = tonumber(ARGV[3]), tonumber(ARGV[4]) do out[#out + 1] = redis.call('GET', series_key(ARGV[1], ARGV[2], number)) or '' end
return out
