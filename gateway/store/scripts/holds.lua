-- The tasks that still hold something, oldest first. Writes nothing.
-- now, which, worker or "", instant (µs) or "", at most how many -> holds, a JSON object of each
-- which: all | orphaned, whose owner's lease has ended | overdue, which this worker owns and which were opened no later than
-- that instant

local now = clock(ARGV[1])
local which = ARGV[2]
if which ~= 'all' and which ~= 'orphaned' and which ~= 'overdue' then invalid('which') end
local worker, before = ARGV[3], ARGV[4]
if which == 'overdue' then
  id('worker', worker)
  integer('before', before, 1, LARGEST / 2)
elseif worker ~= '' or before ~= '' then
  invalid('worker')
end
local most = integer('most', ARGV[5], 1, 10000)

local function is_wanted(task)
  if which == 'all' then return true end
  local owner = redis.call('HGET', NAME.hold .. ':' .. task, 'worker')
  if which == 'overdue' then return owner == worker end
  return owner and tonumber(redis.call('ZSCORE', NAME.leases, owner) or '0') <= now
end

local answer = {'holds'}
for _, task in ipairs(redis.call('ZRANGEBYSCORE', NAME.open, '-inf', before == '' and '+inf' or before)) do
  local record = is_wanted(task) and read_task(task)
  if record then answer[#answer + 1] = describe(record) end
  if #answer > most then break end
end
return answer
