-- Prolongs a worker's lease. One that is asked again only lasts a moment longer.
-- now, worker, µs -> renewed, end

local now = clock(ARGV[1])
local worker = id('worker', ARGV[2])
local stop = now + integer('lease', ARGV[3], 1, 3600 * 1000000)

redis.call('ZADD', NAME.leases, digits(stop), worker)
-- A lease that is missing counts as ended.
redis.call('ZREMRANGEBYSCORE', NAME.leases, '-inf', digits(now - DAY_MS * 1000))
return {'renewed', digits(stop)}
