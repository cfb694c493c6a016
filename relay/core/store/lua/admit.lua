-- Whether a batch would be admitted, before its jobs are staged. Takes nothing.
-- ARGV: client idem hash jobs max_unfinished per_minute max_of_all
return admit(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], false) or {'admitted'}
