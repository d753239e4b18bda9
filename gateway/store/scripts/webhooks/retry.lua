-- Makes a given-up or waiting delivery due now, with all its attempts again.
-- now, id -> done | gone

local now, id = clock(ARGV[1]), ARGV[2]
local key = redis.call('HGET', delivery(id), 'key')
if not key then return {'gone'} end
redis.call('ZREM', NAME.webhooks_lost, id)
redis.call('HSET', delivery(id), 'state', 'waiting', 'tries', '0', 'created', digits(now))
wait(id, key, now)
return {'done'}
