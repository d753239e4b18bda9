-- Closes a target's breaker and ends its cool-down, for an operator: now, label -> done

local now, label = clock(ARGV[1]), label_of(ARGV[2])
local name = key(NAME.target, label)
redis.call('HDEL', name, 'until', 'opens', 'goods', 'probe', 'cooled', 'cooled_why', 'cooled_key', 'low', 'trouble', 'turn')
redis.call('DEL', key(NAME.presumed, label))
redis.call('HSET', name, 'since', digits(now))
keep(NAME.target, label)
return {'done'}
