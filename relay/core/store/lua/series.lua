-- What happened when, by client: counters of each minute for a day, and of each hour for a month. Alone knows their form.
-- ser:1:<client>:m:<hour>, ser:1:<client>:h:<day>   a string of slots, of 32-bit numbers each, in the order of NAMES and
--   then of the lateness histogram; hours and days since 1970. The 1 is to be raised where any of this changes.
-- So a slot takes 256 bytes, whatever happens in it, and what a script counted is written with one command to each.

-- `credits` are in thousandths. There is room for 16.
local NAMES = {'accepted', 'done', 'failed', 'timed_out', 'cancelled', 'delivered', 'exhausted', 'gone', 'submits', 'polls',
  'attempts', 'attempts_failed', 'credits'}
local SLOT, FIRST_BUCKET = 64, 16
-- Bucket 0 is for what took less than this; each of the others ends at so many times where it begins, but for the last,
-- which has no end: it begins at about three days.
local BUCKET_MS, GROWTH = 2, 1.5
local MOST = 4294967295

local SERIES = {
  m = {slot_ms = 60000, slots = 60, kept_ms = 25 * 3600000},
  h = {slot_ms = 3600000, slots = 24, kept_ms = 31 * 86400000},
}

local INDEX = {}
for i, name in ipairs(NAMES) do INDEX[name] = i - 1 end

local function series_key(client, kind, number)
  return P .. 'ser:1:' .. client .. ':' .. kind .. ':' .. int(number)
end

-- What to count for a callback that got through so many ms after the outcome.
local function lateness(ms)
  local bucket = ms < BUCKET_MS and 0 or 1 + math.floor(math.log(ms / BUCKET_MS) / math.log(GROWTH))
  return FIRST_BUCKET + math.min(bucket, SLOT - FIRST_BUCKET - 1)
end

-- Write what the script has counted; its last act.
local function note_counted()
  for client, counts in pairs(counted) do
    for kind, of in pairs(SERIES) do
      local slot = math.floor(NOW / of.slot_ms)
      local key, first = series_key(client, kind, math.floor(slot / of.slots)), slot % of.slots * SLOT
      local change, by = {'BITFIELD', key, 'OVERFLOW', 'SAT'}, {}
      for what, times in pairs(counts) do
        by[#by + 1] = math.min(times, MOST)
        for _, part in ipairs({'INCRBY', 'u32', '#' .. first + (INDEX[what] or what), int(by[#by])}) do
          change[#change + 1] = part
        end
      end
      local is_new = false
      for i, value in ipairs(redis.call(unpack(change))) do is_new = is_new or value == by[i] end
      if is_new then redis.call('PEXPIRE', key, of.kept_ms) end
    end
  end
end
