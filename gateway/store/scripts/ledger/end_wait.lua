-- Ends a request's wait for a task: without the answer, or with the whole answer. Or reports that the client did not read the
-- answer (unread), or closed the connection right after it (closed), so that a retry may claim the task.
-- now, task, waiter, how (left, handed, unread, closed) -> done | gone | unknown

-- µs after a closed connection in which a retry may claim its task. SDKs retry within 8 s of the end of their time-out.
local CLAIM_CLOSED = 10000000

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local waiter = id('task', ARGV[3])
local how = ARGV[4]
if how ~= 'left' and how ~= 'handed' and how ~= 'unread' and how ~= 'closed' then invalid('how') end

local name = NAME.hold .. ':' .. task
local row = redis.call('HMGET', name, 'key', 'fingerprint', 'waiter', 'handed', 'opened')
local key, fingerprint, waiting, handed, opened = unpack(row)
if not fingerprint then return {'unknown'} end
local index = claims_of(key, fingerprint)

if how == 'unread' or how == 'closed' then
  if handed ~= waiter then return {'gone'} end
  -- It is not in the order of time: only a retry can claim that its caller has no answer.
  local until_time = how == 'closed' and digits(now + CLAIM_CLOSED) or ''
  redis.call('HSET', name, 'handed', '', 'left', '0', 'claimable_until', until_time)
  redis.call('ZADD', index, opened, task)
  redis.call('PEXPIRE', index, digits(2 * DAY_MS))
  return {'done'}
end

-- A retry took its place, or this is a repetition.
if waiting ~= waiter then return {'gone'} end
local fields = {'waiter', '', 'left', digits(now)}
-- A task that others must not find stays hidden.
if how == 'handed' and redis.call('ZREM', index, task) == 1 then fields[5], fields[6] = 'handed', waiter end
redis.call('HSET', name, unpack(fields))
return {'done'}
