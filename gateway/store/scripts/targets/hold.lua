-- Prolongs a worker's calls in progress at a target: now, label, lease µs, permits... -> held

local now, label, lease = clock(ARGV[1]), label_of(ARGV[2]), integer('lease', ARGV[3], 1)
for index = 4, #ARGV do permit_of(ARGV[index]) end
for index = 4, #ARGV do redis.call('ZADD', key(NAME.permits, label), digits(now + lease), ARGV[index]) end
-- A target without a limit on its calls counts none, so `take` does not remove those of dead workers.
redis.call('ZREMRANGEBYSCORE', key(NAME.permits, label), '-inf', digits(now))
keep(NAME.permits, label)
return {'held'}
