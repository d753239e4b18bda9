-- Marks the store as one in which a process misses data, until an operator accepts it. The audit reads the mark.
-- now, the id of the epoch in which the process misses data, or "" -> marked | moved: the store has another epoch by now

check_clock(ARGV[1])
local missed = optional(id, 'epoch', ARGV[2])
if string.match(redis.call('GET', NAME.epoch) or '', '^%S*') ~= missed then return {'moved'} end
redis.call('SET', NAME.lost, missed)
return {'marked'}
