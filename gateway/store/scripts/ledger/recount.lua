-- Counts buckets and running tasks again from the tasks and the journal, atomically, and repairs them on request.
-- A bucket's amount is known from three sources: its total; its tasks, with the base of folded ones; its journal, with the
-- base of trimmed entries. The caller has read the journal from the entry `first` to the entry `last`.
-- now, repair (0 | 1), first or "", last or "", number of buckets, number of scopes whose running tasks are counted,
-- of each bucket: scope, window, six sums of the journal entries; then the scopes
-- -> recounted, a JSON object of each difference | moved, if entries have been trimmed since

local now = clock(ARGV[1])
local repairs = integer('repair', ARGV[2], 0, 1) == 1

local function entry_id(what, value)
  if not string.match(value, '^%d+%-%d+$') then invalid(what) end
  return value
end

local function read_scope(value)
  local kind, name = string.match(value or '', '^(%a+):(.+)$')
  if kind == 'key' then
    id('key', name)
  elseif kind == 'team' then
    label('team', name, 128)
  elseif value ~= 'everyone' then
    invalid('scope')
  end
  return value
end

local function read_window(value)
  for _, shape in pairs(WINDOW_NAMES) do
    if value and string.match(value, shape) then return value end
  end
  if value ~= 'total' then invalid('window') end
  return value
end

if not ARGV[3] or not ARGV[4] then invalid('first') end
local first, last = optional(entry_id, 'first', ARGV[3]), optional(entry_id, 'last', ARGV[4])
local count = integer('buckets', ARGV[5], 0, 1000)
local scopes = integer('scopes', ARGV[6], 0, 100000)
if #ARGV ~= 6 + 8 * count + scopes then invalid('buckets') end
local buckets, wanted, running = {}, {}, {}
for index = 0, count - 1 do
  local at = 7 + 8 * index
  local bucket = {scope = read_scope(ARGV[at]), window = read_window(ARGV[at + 1]), tasks = {}, journal = {}}
  for place, amount in ipairs(AMOUNTS) do
    bucket.tasks[amount] = 0
    bucket.journal[amount] = integer(amount, ARGV[at + 1 + place], -LARGEST, LARGEST)
  end
  buckets[#buckets + 1] = bucket
  wanted[bucket.scope .. '\n' .. bucket.window] = bucket
end
for at = 7 + 8 * count, 6 + 8 * count + scopes do running[read_scope(ARGV[at])] = {} end

local oldest = redis.call('XRANGE', NAME.journal, '-', '+', 'COUNT', 1)[1]
if (oldest and oldest[1] or '') ~= first then return {'moved'} end

-- Tasks.

local function add_to(owner, amounts, side)
  for _, scope in ipairs(scopes_of(owner)) do
    for _, window in ipairs({owner.day, owner.week, owner.month, 'total'}) do
      local bucket = wanted[scope.name .. '\n' .. window]
      for _, amount in ipairs(bucket and AMOUNTS or {}) do
        bucket[side][amount] = bucket[side][amount] + (tonumber(amounts[amount]) or 0)
      end
    end
  end
end

local function count_task(record)
  -- A task that was closed before it was opened has no amounts.
  if not record.day then return end
  add_to(record, amounts_of(record), 'tasks')
  for _, scope in ipairs(record.state == 'open' and scopes_of(record) or {}) do
    local counts = running[scope.name]
    if counts then counts[record.worker] = (counts[record.worker] or 0) + 1 end
  end
end

local prefix, cursor, seen = NAME.hold .. ':', '0', {}
repeat
  local found = redis.call('SCAN', cursor, 'MATCH', prefix .. '*', 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    local record = not seen[key] and read_task(string.sub(key, #prefix + 1))
    seen[key] = true
    if record then count_task(record) end
  end
until cursor == '0'

-- Journal entries since the caller's reading.

for _, row in ipairs(redis.call('XRANGE', NAME.journal, last == '' and '-' or '(' .. last, '+')) do
  local entry = {}
  for index = 1, #row[2], 2 do entry[row[2][index]] = row[2][index + 1] end
  if entry.kind ~= 'repair' then
    add_to(entry, entry, 'journal')
  else
    local bucket = wanted[entry.scope .. '\n' .. entry.window]
    for _, amount in ipairs(bucket and AMOUNTS or {}) do
      bucket.journal[amount] = bucket.journal[amount] + (tonumber(entry[amount]) or 0)
    end
  end
end

-- Decisions.

local answer = {'recounted'}

local function whole(value)
  local number = string.match(value or '0', '^%-?%d+$') and tonumber(value or '0')
  return number and math.abs(number) <= LARGEST and number or nil
end

-- Only tasks can hold amounts. For spent amounts two of three sources decide; if all three differ, the larger amount that has
-- evidence is right, because an operator can credit the difference.
local function judge(amount, total, by_tasks, by_journal, tasks)
  if string.match(amount, '_held$') then return tasks end
  if total and (total == by_tasks or total == by_journal) then return total end
  return math.max(by_tasks, by_journal)
end

local function recount(bucket)
  local key = NAME.window .. ':' .. bucket.scope .. ':' .. bucket.window
  local fields, entry = {}, {}
  for _, amount in ipairs(AMOUNTS) do
    local row = redis.call('HMGET', key, amount, 'folded:' .. amount, 'trimmed:' .. amount)
    local total, folded, trimmed = whole(row[1] or nil), whole(row[2] or nil), whole(row[3] or nil)
    local tasks = bucket.tasks[amount]
    local by_tasks, by_journal = (folded or 0) + tasks, (trimmed or 0) + bucket.journal[amount]
    local right = judge(amount, total, by_tasks, by_journal, tasks)
    if total ~= right or not folded or not trimmed or by_tasks ~= right or by_journal ~= right then
      answer[#answer + 1] = cjson.encode({
        kind = 'sum', place = bucket.scope .. ' ' .. bucket.window, name = amount, found = row[1] or '0',
        tasks = digits(by_tasks), journal = digits(by_journal), right = digits(right),
      })
      local repaired = {[amount] = right, ['folded:' .. amount] = right - tasks, ['trimmed:' .. amount] = trimmed or 0}
      for field, value in pairs(repaired) do fields[#fields + 1], fields[#fields + 2] = field, digits(value) end
      local told = {[amount] = right - by_journal, ['was:' .. amount] = total or 0, ['is:' .. amount] = right}
      for field, value in pairs(told) do entry[#entry + 1], entry[#entry + 2] = field, digits(value) end
    end
  end
  if not repairs or #fields == 0 then return end
  redis.call('HSET', key, unpack(fields))
  if bucket.window ~= 'total' and redis.call('PTTL', key) < 0 then
    redis.call('PEXPIRE', key, digits(WINDOW_KEPT_MS))
  end
  redis.call('XADD', NAME.journal, '*', 'at', digits(now), 'kind', 'repair', 'scope', bucket.scope,
    'window', bucket.window, unpack(entry))
end

local function recount_running(scope, right)
  local key, found = NAME.running .. ':' .. scope, {}
  local flat = redis.call('HGETALL', key)
  for index = 1, #flat, 2 do
    found[flat[index]] = flat[index + 1]
    right[flat[index]] = right[flat[index]] or 0
  end
  for worker, number in pairs(right) do
    if found[worker] ~= digits(number) then
      answer[#answer + 1] = cjson.encode({
        kind = 'running', place = scope, name = worker, found = found[worker] or '0', tasks = digits(number),
        journal = '', right = digits(number),
      })
      if repairs and number == 0 then redis.call('HDEL', key, worker) end
      if repairs and number > 0 then redis.call('HSET', key, worker, digits(number)) end
    end
  end
end

for _, bucket in ipairs(buckets) do recount(bucket) end
for scope, right in pairs(running) do recount_running(scope, right) end
return answer
