-- Checks that the indexes name a task as they must, and repairs them on request.
-- now, repair (0 | 1), task -> reindexed, the indexes that name it, the one that must ("" none)

local now = clock(ARGV[1])
local repairs = integer('repair', ARGV[2], 0, 1) == 1
local task = id('task', ARGV[3])

local function right_index(record)
  if not record then return '' end
  if record.state ~= 'closed' then return 'open' end
  local index = 'ended'
  for _, call in pairs(record.calls) do
    if call.state == 'held' then return 'open' end
    if call.state == 'presumed' then index = 'doubtful' end
  end
  return index
end

local record = read_task(task)
local right, found = right_index(record), {}
for _, index in ipairs({'open', 'ended', 'doubtful'}) do
  if redis.call('ZSCORE', NAME[index], task) then
    found[#found + 1] = index
    if repairs and index ~= right then redis.call('ZREM', NAME[index], task) end
  elseif repairs and index == right then
    redis.call('ZADD', NAME[index], index == 'open' and record.opened or digits(now), task)
  end
end
return {'reindexed', table.concat(found, '+'), right}
