-- Makes another worker the owner of a task after the owner's lease has ended. A higher fence excludes the old owner.
-- now, task, worker, the known fence -> adopted, fence | living | fenced, fence | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local worker = id('worker', ARGV[3])
local fence = integer('fence', ARGV[4], 1, LARGEST - 1)

local record = read_task(task)
if not record or not record.worker then return {'unknown'} end
-- A repetition: the first reply was lost.
if record.worker == worker and record.fence == digits(fence + 1) then return {'adopted', record.fence} end
local stranger = not_owned(record, fence)
if stranger then return stranger end
if tonumber(redis.call('ZSCORE', NAME.leases, record.worker) or '0') > now then return {'living'} end

local former = record.worker
write_task(record, 'worker', worker, 'fence', digits(fence + 1))
store(record)
if record.state == 'open' then
  count_running(record, former, -1)
  count_running(record, worker, 1)
end
return {'adopted', digits(fence + 1)}
