-- Gives one of all workers the turn to check a target: now, label, interval µs -> yours | not yet
-- While its breaker is half-open, the turn comes ten times as often.

local now, label, every = clock(ARGV[1]), label_of(ARGV[2]), integer('every', ARGV[3], 1)
local target = read(label)
if breaker_of(target, now) == 'half' then every = every / 10 end
if number(target, 'turn') + every > now then return {'not yet'} end
redis.call('HSET', key(NAME.target, label), 'turn', digits(now))
keep(NAME.target, label)
return {'yours'}
