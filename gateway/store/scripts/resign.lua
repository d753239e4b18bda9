-- Ends a worker's lease now: it has stopped, and what it left may be taken over at once.
-- now, worker -> resigned

local now = clock(ARGV[1])
local worker = id('worker', ARGV[2])
redis.call('ZADD', NAME.leases, 'XX', digits(now), worker)
return {'resigned'}
