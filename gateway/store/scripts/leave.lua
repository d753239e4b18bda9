-- Ends a request's wait for a task: it left without the answer, or the answer was handed over entirely.
-- now, task, waiter, how (left, handed) -> done | gone | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local waiter = id('task', ARGV[3])
local how = ARGV[4]
if how ~= 'left' and how ~= 'handed' then invalid('how') end

local record = read_task(task)
if not record or not record.fingerprint then return {'unknown'} end
-- A retry took its place, or it said so before.
if record.waiter ~= waiter then return {'gone'} end

redis.call('HSET', NAME.hold .. ':' .. task, 'waiter', '', 'left', digits(now))
if how == 'handed' then redis.call('ZREM', claims_of(record.key, record.fingerprint), task) end
return {'done'}
