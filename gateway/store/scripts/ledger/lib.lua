-- Functions shared by the scripts of the ledger. The loader puts NAME (every name in Redis, from names.py) before this text.
-- Amounts are whole micro-dollars (µ$) and whole images, times are µs. Lua's numbers are doubles, exact to 2^53. Redis and
-- cjson would print only 14 to 17 digits of them, so every number leaves a script through `digits`.

local LARGEST = 9007199254740991
local MOST_USD = 1000000000000 -- µ$ for one image or one bill: sums of thousands of these stay exact
local MOST_IMAGES = 1000
local MINUTE = 60000000
local WINDOW_KEPT_MS = 400 * 24 * 3600 * 1000
local DAY_MS = 24 * 3600 * 1000
local CALL_KEPT_MS = 2 * DAY_MS

local function digits(number)
  return string.format('%.0f', number)
end

-- Arguments. A script that fails keeps its earlier writes, so it checks all arguments with these before its first write.

local function invalid(what)
  error('INVALID ' .. what, 0)
end

local function integer(what, value, lowest, highest)
  if value ~= '0' and not string.match(value or '', '^%-?[1-9]%d*$') then invalid(what) end
  -- The bounds are at most LARGEST. A number that a double cannot hold is read as a larger one.
  local number = tonumber(value)
  if number < lowest or number > highest then invalid(what) end
  return number
end

-- An id of this gateway: a prefix and 26 letters.
local function id(what, value)
  if not value or not string.match(value, '^' .. what .. '_[0-9a-z]+$') or #value ~= #what + 27 then invalid(what) end
  return value
end

-- A name that a user chose: no control characters, no space at its ends.
local function label(what, value, longest)
  if not value or #value == 0 or #value > longest or string.match(value, '[%c]') or string.match(value, '^ ')
    or string.match(value, ' $') then invalid(what) end
  return value
end

local function digest(what, value)
  if not value or #value ~= 64 or not string.match(value, '^[0-9a-f]+$') then invalid(what) end
  return value
end

-- µ$ an image, or nil if the target's price is unknown.
local function price_of(value)
  if value == '' then return nil end
  return integer('price', value, 0, MOST_USD)
end

local function optional(read, what, value, longest)
  if value == '' then return '' end
  return read(what, value, longest)
end

-- An object as JSON, stored as it is and read only by Python.
local function object(what, value)
  if not value or #value > 65536 or not string.match(value, '^{.*}$') then invalid(what) end
  return value
end

local function beat_of(what, value)
  return integer(what, value, 1, LARGEST / 2)
end

-- Slots as "0,2,3": ascending, each below the number of images.
local function slot_list(value, images)
  local slots, last = {}, -1
  for word in string.gmatch((value or '') .. ',', '([^,]*),') do
    local slot = integer('slots', word, last + 1, images - 1)
    slots[#slots + 1], last = slot, slot
  end
  return slots
end

-- Tests pass the time; other callers pass "" and get the server's time, which stands still while a script runs.
local function check_clock(value)
  if value ~= '' then return integer('now', value, 1, LARGEST / 2) end
  return nil
end

local server_time

local function clock(value)
  local now = check_clock(value) or server_time
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
    server_time = now
  end
  return now
end

-- The calling process's knowledge of this store, by which a store that lost data is found out: the epoch, its worker, and the
-- end of its lease before the last renewal, because a fail-over may lose the last one. All "": it knows nothing.
local function read_memory(first)
  return {
    epoch = optional(id, 'epoch', ARGV[first]), worker = optional(id, 'worker', ARGV[first + 1]),
    beat = optional(beat_of, 'beat', ARGV[first + 2]),
  }
end

-- The answer to a process that knows more than the store, or nil. A worker that was suspended for a day is not checked.
local function forgotten(now, memory)
  if memory.epoch == '' then return nil end
  local epoch = redis.call('GET', NAME.epoch) or ''
  if string.match(epoch, '^%S*') ~= memory.epoch then return {'lost', epoch, digits(now)} end
  if memory.beat == '' or memory.beat <= now - DAY_MS * 1000 then return nil end
  if tonumber(redis.call('ZSCORE', NAME.leases, memory.worker) or '0') < memory.beat then
    return {'lost', epoch, digits(now)}
  end
  return nil
end

-- Windows. A task always counts in the windows in which it was opened. Python names them and knows the time zone.

local WINDOW_NAMES = {day = '^%d%d%d%d%-%d%d%-%d%d$', week = '^%d%d%d%d%-W%d%d$', month = '^%d%d%d%d%-%d%d$'}
local SPANS = {'day', 'week', 'month'}

-- Reads nine arguments: name, start and end of the day, the week and the month.
local function read_windows(first)
  local windows = {}
  for index, span in ipairs(SPANS) do
    local at = first + 3 * (index - 1)
    local name = ARGV[at]
    if not name or not string.match(name, WINDOW_NAMES[span]) then invalid(span) end
    local start = integer(span .. '_start', ARGV[at + 1], 1, LARGEST / 2)
    windows[span] = {name = name, start = start, stop = integer(span .. '_end', ARGV[at + 2], start + 1, LARGEST / 2)}
  end
  return windows
end

-- `owner` has key, team, day, week and month; key and team may be "".
local function scopes_of(owner)
  if owner.scopes then return owner.scopes end
  local scopes = {}
  if owner.key ~= '' then scopes[#scopes + 1] = {kind = 'key', name = 'key:' .. owner.key} end
  if owner.team ~= '' then scopes[#scopes + 1] = {kind = 'team', name = 'team:' .. owner.team} end
  scopes[#scopes + 1] = {kind = 'everyone', name = 'everyone'}
  owner.scopes = scopes
  return scopes
end

local function window_key(scope, window)
  return NAME.window .. ':' .. scope.name .. ':' .. window
end

-- Limits on amounts, the longest window first: an error names the limit that takes longest to reset.
local AMOUNT_LIMITS = {
  {name = 'usd_total', unit = 'usd'},
  {name = 'usd_month', unit = 'usd', span = 'month'},
  {name = 'usd_week', unit = 'usd', span = 'week'},
  {name = 'usd_day', unit = 'usd', span = 'day'},
  {name = 'images_month', unit = 'images', span = 'month'},
  {name = 'images_day', unit = 'images', span = 'day'},
}

local known_limits = {}

local function read_limits(scope)
  if known_limits[scope.name] then return known_limits[scope.name] end
  local limits, flat = {}, redis.call('HGETALL', NAME.limits .. ':' .. scope.name)
  for index = 1, #flat, 2 do limits[flat[index]] = tonumber(flat[index + 1]) end
  known_limits[scope.name] = limits
  return limits
end

-- The answer of an amount limit to `needs` more of usd and images, or nil. `ends` has the end of each span.
local function over_amount(now, scope, limits, owner, needs, ends)
  for _, limit in ipairs(AMOUNT_LIMITS) do
    local ceiling = limits[limit.name]
    if ceiling and needs[limit.unit] then
      local window = limit.span and owner[limit.span] or 'total'
      local unit = limit.unit
      local sums = redis.call('HMGET', window_key(scope, window), unit .. '_held', unit .. '_presumed', unit .. '_posted')
      local taken = (tonumber(sums[1]) or 0) + (tonumber(sums[2]) or 0) + (tonumber(sums[3]) or 0)
      if taken + needs[unit] > ceiling then
        local resets = limit.span and digits(ends[limit.span]) or ''
        return {'refused', limit.name, scope.kind, digits(ceiling), digits(math.max(0, ceiling - taken)), resets,
          digits(now)}
      end
    end
  end
  return nil
end

-- A task of unknown price could exceed any limit in dollars: the first such limit refuses it.
local function over_unpriced(owner)
  for _, scope in ipairs(scopes_of(owner)) do
    local limits = read_limits(scope)
    for _, limit in ipairs(AMOUNT_LIMITS) do
      if limit.unit == 'usd' and limits[limit.name] then return {'unpriced', limit.name, scope.kind} end
    end
  end
  return nil
end

-- GCRA. `tat` is the time at which the bucket is full again. A limit of L a minute allows L at once, then one an interval.
local RATES = {'requests_minute', 'images_minute'}

local function look_at_rate(now, scope, name, ceiling, needs)
  local interval = math.ceil(MINUTE / ceiling)
  local key = NAME.rate .. ':' .. scope.name .. ':' .. name
  local before = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local tat = before + needs * interval
  local wait = tat - now - ceiling * interval
  local left = math.max(0, math.floor((ceiling * interval - (before - now)) / interval))
  return {key = key, before = before, tat = tat, wait = wait, left = left, name = name, scope = scope.kind,
    ceiling = ceiling, needs = needs}
end

-- The calling worker runs; another runs until its lease ends.
local function is_living(now, worker, asking)
  return worker == asking or tonumber(redis.call('ZSCORE', NAME.leases, worker) or '0') > now
end

-- A worker whose lease has ended runs nothing: the resolver or an adopter owns its tasks.
local function count_living(now, scope, worker)
  local running, flat = 0, redis.call('HGETALL', NAME.running .. ':' .. scope.name)
  for index = 1, #flat, 2 do
    if is_living(now, flat[index], worker) then running = running + tonumber(flat[index + 1]) end
  end
  return running
end

-- The tasks of one key and fingerprint whose answer no caller has yet.
local function claims_of(key, fingerprint)
  return NAME.claims .. ':' .. key .. ':' .. fingerprint
end

-- Books. Amounts change only here: in every window of every scope and in the journal, together.

local AMOUNTS = {'usd_held', 'usd_presumed', 'usd_posted', 'images_held', 'images_presumed', 'images_posted'}

-- `entry` has pairs of an amount and its change. Returns true if one of the amounts was 0 or missing.
local function add_to_window(key, entry)
  local was_empty = false
  for index = 1, #entry, 2 do
    local sum = redis.call('HINCRBY', key, entry[index], entry[index + 1])
    was_empty = was_empty or sum == tonumber(entry[index + 1])
  end
  return was_empty
end

-- A calendar window expires long after its end, by the caller's clock, which tests replace. Returns true if it did not before.
local function keep_window(now, key, stop)
  if redis.call('PTTL', key) >= 0 then return false end
  redis.call('PEXPIRE', key, digits(math.floor((stop - now) / 1000) + WINDOW_KEPT_MS))
  return true
end

-- With `windows`, which have the end of each span, new windows get their expiry. A week and a month are as old as their days.
local function book(now, kind, owner, deltas, more, windows)
  local entry = {}
  for _, amount in ipairs(AMOUNTS) do
    local delta = deltas[amount] or 0
    if delta ~= 0 then
      entry[#entry + 1] = amount
      entry[#entry + 1] = digits(delta)
    end
  end
  if #entry == 0 then return end
  for _, scope in ipairs(scopes_of(owner)) do
    local may_be_new = windows and true
    for _, span in ipairs(SPANS) do
      local key = window_key(scope, owner[span])
      local was_empty = add_to_window(key, entry)
      may_be_new = may_be_new and was_empty and keep_window(now, key, windows[span].stop)
    end
    add_to_window(window_key(scope, 'total'), entry)
  end
  for _, field in ipairs({'key', 'team', 'day', 'week', 'month'}) do
    entry[#entry + 1] = field
    entry[#entry + 1] = owner[field]
  end
  for field, value in pairs(more) do
    entry[#entry + 1] = field
    entry[#entry + 1] = value
  end
  redis.call('XADD', NAME.journal, '*', 'at', digits(now), 'kind', kind, unpack(entry))
end

-- Tasks. A slot is "<µ$ held> <owner>"; the owner is free, released or a call. A call is "<state> <µ$ if presumed> <µ$ counted>
-- <images counted> <its slots> <time of its mark> <policy for an unknown outcome>"; its states are
-- held < void < presumed < posted and only rise.

local COLON, LETTER_S = string.byte(':'), string.byte('s')

-- The task that was read last: the steps of one chain read it once. Every write to a task changes its record too.
local last_read

local function read_task(task)
  if last_read and last_read.id == task then return last_read end
  local flat = redis.call('HGETALL', NAME.hold .. ':' .. task)
  if #flat == 0 then return nil end
  local record = {id = task, slots = {}, calls = {}, changes = {}}
  for index = 1, #flat, 2 do
    local field, value = flat[index], flat[index + 1]
    -- The fields "slot:<number>" and "call:<id>": no other has a colon there.
    if string.byte(field, 5) ~= COLON then
      record[field] = value
    elseif string.byte(field) == LETTER_S then
      local held, by = string.match(value, '^(%d+) (%S+)$')
      record.slots[tonumber(string.sub(field, 6))] = {held = tonumber(held), by = by}
    else
      local state, price, usd, images, slots, at, policy =
        string.match(value, '^(%a+) (%d+) (%d+) (%d+) (%S+) (%d+) (%a+)$')
      local call = string.sub(field, 6)
      record.calls[call] = {
        id = call, state = state, price = tonumber(price), usd = tonumber(usd), images = tonumber(images),
        slots = slots == '-' and {} or slot_list(slots, MOST_IMAGES), written = slots, at = at,
        policy = policy,
      }
    end
  end
  record.images = tonumber(record.images)
  last_read = record
  return record
end

-- `write_task`, `write_slot` and `write_call` change the record; `store` writes all of their changes at once. A script stores
-- them before it changes anything else, and before its end.

-- Changes fields of a task, given as field, value, field, value.
local function write_task(record, ...)
  local fields, changes = {...}, record.changes
  for index = 1, #fields, 2 do record[fields[index]] = fields[index + 1] end
  for _, word in ipairs(fields) do changes[#changes + 1] = word end
end

local function write_slot(record, slot, held, by)
  local changes = record.changes
  record.slots[slot] = {held = held, by = by}
  changes[#changes + 1] = 'slot:' .. digits(slot)
  changes[#changes + 1] = digits(held) .. ' ' .. by
end

local function write_call(record, call)
  local changes = record.changes
  record.calls[call.id] = call
  changes[#changes + 1] = 'call:' .. call.id
  changes[#changes + 1] = table.concat({
    call.state, digits(call.price), digits(call.usd), digits(call.images), call.written, call.at, call.policy,
  }, ' ')
end

local function store(record)
  if #record.changes > 0 then redis.call('HSET', NAME.hold .. ':' .. record.id, unpack(record.changes)) end
  record.changes = {}
end

-- The facts by which another process can finish a call. Evidence from any process adds to them.
local function note_call(call, fields)
  redis.call('HSET', NAME.call .. ':' .. call, unpack(fields))
  redis.call('PEXPIRE', NAME.call .. ':' .. call, digits(CALL_KEPT_MS))
end

-- Takes the amounts that the call's slots hold; slots that another call has meanwhile do not count.
local function take_held(record, call)
  local usd, images = 0, 0
  for _, slot in ipairs(call.slots) do
    local found = record.slots[slot]
    if found.by == call.id or (call.state == 'void' and found.by == 'free') then
      usd, images = usd + found.held, images + 1
      write_slot(record, slot, 0, call.id)
    end
  end
  return usd, images
end

-- Releases the free slots of a task for good. Returns the amounts that they held.
local function release_free(record)
  local usd, images = 0, 0
  for slot = 0, record.images - 1 do
    if record.slots[slot].by == 'free' then
      usd, images = usd + record.slots[slot].held, images + 1
      write_slot(record, slot, 0, 'released')
    end
  end
  return usd, images
end

local function count_running(owner, worker, step)
  for _, scope in ipairs(scopes_of(owner)) do
    local key = NAME.running .. ':' .. scope.name
    if redis.call('HINCRBY', key, worker, digits(step)) <= 0 then redis.call('HDEL', key, worker) end
  end
end

-- The amounts of a task, by name.
local function amounts_of(record)
  local sums = {}
  for _, amount in ipairs(AMOUNTS) do sums[amount] = 0 end
  for _, slot in pairs(record.slots) do
    local call = record.calls[slot.by]
    if slot.by == 'free' or (call and call.state == 'held') then
      sums.usd_held, sums.images_held = sums.usd_held + slot.held, sums.images_held + 1
    end
  end
  for _, call in pairs(record.calls) do
    if call.state == 'presumed' or call.state == 'posted' then
      local usd, images = 'usd_' .. call.state, 'images_' .. call.state
      sums[usd], sums[images] = sums[usd] + call.usd, sums[images] + call.images
    end
  end
  return sums
end

-- A task as JSON. Every number in it is text, which cjson does not change.
local function describe(record)
  local made = {calls = {}, free = 0}
  for _, field in ipairs({'id', 'key', 'team', 'worker', 'fence', 'state', 'opened', 'day', 'week', 'month'}) do
    made[field] = record[field] or ''
  end
  for _, slot in pairs(record.slots) do
    if slot.by == 'free' then made.free = made.free + 1 end
  end
  made.free, made.images = digits(made.free), digits(record.images)
  for amount, value in pairs(amounts_of(record)) do made[amount] = digits(value) end
  for name, call in pairs(record.calls) do
    made.calls[name] = {
      state = call.state, price = digits(call.price), usd = digits(call.usd), images = digits(call.images),
      slots = digits(#call.slots), marked = call.at, policy = call.policy,
    }
  end
  return cjson.encode(made)
end

-- A closed task without a call in progress is folded later; one with presumed calls later still.
local function index_ended(record, now)
  if record.state ~= 'closed' then return end
  local index = NAME.ended
  for _, call in pairs(record.calls) do
    if call.state == 'held' then return end
    if call.state == 'presumed' then index = NAME.doubtful end
  end
  if redis.call('ZREM', NAME.open, record.id) == 0 then
    -- A later charge moves a task from one to the other.
    redis.call('ZREM', index == NAME.ended and NAME.doubtful or NAME.ended, record.id)
  end
  redis.call('ZADD', index, digits(now), record.id)
end

-- Only the owner makes decisions: nil for the owner, or the answer to another worker.
local function not_owned(record, fence)
  if not record then return {'unknown'} end
  if record.fence ~= digits(fence) then return {'fenced', record.fence} end
  return nil
end
