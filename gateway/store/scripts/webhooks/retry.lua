-- Lets a delivery that was given up, or one that waits for its next try, be tried now, with all its tries anew.
-- now, id -> done | gone

local now, id = clock(ARGV[1]), ARGV[2]
local key = redis.call('HGET', delivery(id), 'key')
if not key then return {'gone'} end
redis.call('ZREM', NAME.webhooks_lost, id)
redis.call('HSET', delivery(id), 'state', 'waiting', 'tries', '0', 'created', digits(now))
wait(id, key, now)
return {'done'}
