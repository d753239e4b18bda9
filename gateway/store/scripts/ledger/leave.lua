-- Ends a request's wait for a task: it left without the answer, or the answer was handed over entirely; or tells that what
-- was handed over was never read, so that a retry may claim the task after all.
-- now, task, waiter, how (left, handed, unread) -> done | gone | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local waiter = id('task', ARGV[3])
local how = ARGV[4]
if how ~= 'left' and how ~= 'handed' and how ~= 'unread' then invalid('how') end

local record = read_task(task)
if not record or not record.fingerprint then return {'unknown'} end
local name, index = NAME.hold .. ':' .. task, claims_of(record.key, record.fingerprint)

if how == 'unread' then
  if record.handed ~= waiter then return {'gone'} end
  -- Left nowhere in time: only a retry says by itself that its caller has nothing.
  redis.call('HSET', name, 'handed', '', 'left', '0')
  redis.call('ZADD', index, record.opened, task)
  redis.call('PEXPIRE', index, digits(2 * DAY_MS))
  return {'done'}
end

-- A retry took its place, or it said so before.
if record.waiter ~= waiter then return {'gone'} end
redis.call('HSET', name, 'waiter', '', 'left', digits(now))
-- One that was not to be found by others stays so.
if how == 'handed' and redis.call('ZREM', index, task) == 1 then redis.call('HSET', name, 'handed', waiter) end
return {'done'}
