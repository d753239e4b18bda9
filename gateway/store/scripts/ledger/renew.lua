-- Prolongs a worker's lease; one that is asked again only lasts a moment longer. A process that remembers nothing takes the
-- store's epoch, or makes the first one.
-- now, worker, µs, memory (3), an id for the first epoch or "" -> renewed, end, now, epoch | lost, epoch, now
-- an epoch is "<id> <created or accepted> <when, µs>"

local now = clock(ARGV[1])
local worker = id('worker', ARGV[2])
local lease = integer('lease', ARGV[3], 1, 3600 * 1000000)
local memory = read_memory(4)
local first = optional(id, 'epoch', ARGV[7])

local lost = forgotten(now, memory)
if lost then return lost end

if first ~= '' then redis.call('SET', NAME.epoch, first .. ' created ' .. digits(now), 'NX') end
-- Never back, though the server's clock may go back at a fail-over: the end is also the worker's heartbeat.
local stop = math.max(now + lease, tonumber(redis.call('ZSCORE', NAME.leases, worker) or '0'))
redis.call('ZADD', NAME.leases, digits(stop), worker)
-- A lease that is missing counts as ended.
redis.call('ZREMRANGEBYSCORE', NAME.leases, '-inf', digits(now - DAY_MS * 1000))
return {'renewed', digits(stop), digits(now), redis.call('GET', NAME.epoch) or ''}
