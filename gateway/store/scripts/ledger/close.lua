-- Releases the slots that will never be sent. Calls in progress stay held until evidence or the resolver settles them, and
-- the task no longer counts as running.
-- now, task, fence, how: "", policy (a refusal that a retry gets too), cancel (only if nothing was sent), collect (an adopter
-- collects the results of its calls, and equal requests wait for them)
-- -> closed | sent | fenced, fence

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local fence = integer('fence', ARGV[3], 1, LARGEST)
local how = ARGV[4]
if how ~= '' and how ~= 'policy' and how ~= 'cancel' and how ~= 'collect' then invalid('how') end

local record = read_task(task)
if not record then
  -- An opening whose reply was lost may still arrive, and must find the task closed.
  redis.call('HSET', NAME.hold .. ':' .. task, 'state', 'closed', 'fence', digits(fence), 'images', '0', 'key', '',
    'team', '', 'opened', digits(now))
  redis.call('ZADD', NAME.ended, digits(now), task)
  return {'closed'}
end
local stranger = not_owned(record, fence)
if stranger then return stranger end
if how == 'collect' then
  write_task(record, 'heir', '1')
  store(record)
end
-- Its worker may have closed the task a moment before, with an end that is not stored yet.
if how == 'cancel' then
  for _, call in pairs(record.calls) do
    if call.state ~= 'void' then return {'sent'} end
  end
end
if record.state == 'closed' then return {'closed'} end

if how == 'policy' then write_task(record, 'answer', how) end
write_task(record, 'state', 'closed', 'ended', digits(now))
local usd, images = release_free(record)
store(record)
count_running(record, record.worker, -1)
book(now, 'close', record, {usd_held = -usd, images_held = -images}, {task = task})
index_ended(record, now)
return {'closed'}
