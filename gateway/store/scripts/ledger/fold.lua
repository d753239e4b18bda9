-- Adds ended tasks and old journal entries to the base amounts of their windows, and removes them.
-- now, µs to keep an ended task, one with presumed calls, a journal entry, the most of each -> folded, tasks, entries

local now = clock(ARGV[1])
local keep_ended = integer('keep_ended', ARGV[2], 1, LARGEST)
local keep_doubtful = integer('keep_doubtful', ARGV[3], 1, LARGEST)
local keep_journal = integer('keep_journal', ARGV[4], 1, LARGEST)
local most = integer('most', ARGV[5], 1, 10000)

-- An expired window has no totals, and needs no base.
local function add_to_window(prefix, key, amounts)
  if redis.call('EXISTS', key) == 0 then return end
  for amount, value in pairs(amounts) do redis.call('HINCRBY', key, prefix .. amount, value) end
end

local function add_base(prefix, owner, amounts)
  for _, scope in ipairs(scopes_of(owner)) do
    for _, window in ipairs({owner.day, owner.week, owner.month, 'total'}) do
      add_to_window(prefix, window_key(scope, window), amounts)
    end
  end
end

local function fold_task(task)
  local record = read_task(task)
  -- Only a damaged store lists a missing task.
  if not record then return end
  local sums = amounts_of(record)
  local amounts = {}
  for amount, value in pairs(sums) do
    if value ~= 0 then amounts[amount] = digits(value) end
  end
  if next(amounts) then add_base('folded:', record, amounts) end
  redis.call('DEL', NAME.hold .. ':' .. task)
end

local tasks = 0
for _, index in ipairs({{NAME.ended, keep_ended}, {NAME.doubtful, keep_doubtful}}) do
  local due = redis.call('ZRANGEBYSCORE', index[1], '-inf', digits(now - index[2]), 'LIMIT', 0, most)
  for _, task in ipairs(due) do
    fold_task(task)
    redis.call('ZREM', index[1], task)
    tasks = tasks + 1
  end
end

local entries = 0
for _, row in ipairs(redis.call('XRANGE', NAME.journal, '-', '+', 'COUNT', most)) do
  local entry, amounts = {}, {}
  for index = 1, #row[2], 2 do entry[row[2][index]] = row[2][index + 1] end
  if tonumber(entry.at) > now - keep_journal then break end
  for _, amount in ipairs(AMOUNTS) do amounts[amount] = entry[amount] end
  if entry.kind == 'repair' then
    -- A repair concerns one bucket.
    add_to_window('trimmed:', NAME.window .. ':' .. entry.scope .. ':' .. entry.window, amounts)
  else
    add_base('trimmed:', entry, amounts)
  end
  redis.call('XDEL', NAME.journal, row[1])
  entries = entries + 1
end
return {'folded', digits(tasks), digits(entries)}
