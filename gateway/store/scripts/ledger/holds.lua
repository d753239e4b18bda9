-- Returns the tasks that still hold amounts, oldest first. Writes nothing.
-- now, selection, worker or "", instant (µs) or "", the most -> holds, a JSON object of each
-- selection: all | orphaned (the owner's lease has ended) | overdue (this worker's, opened no later than that instant) |
-- left (closed shortly before the end of their worker's lease, which ended after that instant)

local now = clock(ARGV[1])
local which = ARGV[2]
if which ~= 'all' and which ~= 'orphaned' and which ~= 'overdue' and which ~= 'left' then invalid('which') end
local worker, before = ARGV[3], ARGV[4]
if which == 'overdue' then
  id('worker', worker)
  integer('before', before, 1, LARGEST / 2)
elseif which == 'left' then
  if worker ~= '' then invalid('worker') end
  integer('before', before, 1, LARGEST / 2)
elseif worker ~= '' or before ~= '' then
  invalid('worker')
end
local most = integer('most', ARGV[5], 1, 10000)

local LEFT = 5 * MINUTE

local function is_wanted(task)
  if which == 'all' then return true end
  local owner = redis.call('HGET', NAME.hold .. ':' .. task, 'worker')
  if which == 'overdue' then return owner == worker end
  return owner and tonumber(redis.call('ZSCORE', NAME.leases, owner) or '0') <= now
end

local answer = {'holds'}

-- A closed task is in no list of open tasks. Only the tasks of workers that ended lately are searched.
local function add_left(dead, lease_end)
  for _, index in ipairs({NAME.ended, NAME.doubtful}) do
    for _, task in ipairs(redis.call('ZRANGEBYSCORE', index, digits(lease_end - LEFT), digits(lease_end))) do
      if #answer > most then return end
      local record = redis.call('HGET', NAME.hold .. ':' .. task, 'worker') == dead and read_task(task)
      if record then answer[#answer + 1] = describe(record) end
    end
  end
end

if which == 'left' then
  local dead = redis.call('ZRANGEBYSCORE', NAME.leases, '(' .. before, digits(now), 'WITHSCORES')
  for index = 1, #dead, 2 do add_left(dead[index], tonumber(dead[index + 1])) end
  return answer
end

for _, task in ipairs(redis.call('ZRANGEBYSCORE', NAME.open, '-inf', before == '' and '+inf' or before)) do
  local record = is_wanted(task) and read_task(task)
  if record then answer[#answer + 1] = describe(record) end
  if #answer > most then break end
end
return answer
