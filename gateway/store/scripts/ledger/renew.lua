-- Prolongs a worker's lease; a repetition prolongs it a moment more. A process that knows no epoch gets the store's, or makes
-- the first one.
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
-- Never earlier, though a fail-over may set the server's clock back: the end is also the worker's heartbeat.
local stop = math.max(now + lease, tonumber(redis.call('ZSCORE', NAME.leases, worker) or '0'))
redis.call('ZADD', NAME.leases, digits(stop), worker)
-- A missing lease counts as ended.
redis.call('ZREMRANGEBYSCORE', NAME.leases, '-inf', digits(now - DAY_MS * 1000))
return {'renewed', digits(stop), digits(now), redis.call('GET', NAME.epoch) or ''}
