-- Joins an equal task, or admits a new one and holds its price in all of its limits, or in none.
-- now, task, key, team or "", idempotency digest or "", fingerprint, retry count, µ$ an image or "", images, worker,
-- form (answer, task, join), µs until the caller's own time-out or 0, µs for which a task without a waiter can be joined, µs for
-- which an ended task can be joined, memory (3), windows (9)
-- -> new, fence, rates | joined, task | replay, task | mismatch | refused, limit, scope, ceiling, left, time of its reset (µs) or "", now, rates
--  | too_many, limit, scope, ceiling | unpriced, limit, scope | window_moved, now | lost, epoch, now | closed
--  | conflict | nothing (the form is join and there is no task to join)
-- of each rate: name, scope, limit, left, µs until it is full again

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local owner = {key = id('key', ARGV[3]), team = optional(label, 'team', ARGV[4], 128)}
local idempotency = optional(digest, 'idempotency', ARGV[5])
local fingerprint = digest('fingerprint', ARGV[6])
local retry = integer('retry', ARGV[7], 0, 1000)
local price = price_of(ARGV[8])
local images = integer('images', ARGV[9], 1, MOST_IMAGES)
local worker = id('worker', ARGV[10])
local form = ARGV[11]
if form ~= 'answer' and form ~= 'task' and form ~= 'join' then invalid('form') end
local patience = integer('patience', ARGV[12], 0, 7 * DAY_MS * 1000)
local orphans = integer('orphans', ARGV[13], 0, DAY_MS * 1000)
local keep = integer('keep', ARGV[14], 0, 7 * DAY_MS * 1000)
local memory = read_memory(15)
local windows = read_windows(18)
local ends = {}
for _, span in ipairs(SPANS) do
  owner[span] = windows[span].name
  ends[span] = windows[span].stop
end

local NEEDS = {requests_minute = 1, images_minute = images}

local function add_rates(answer, rates)
  for _, rate in ipairs(rates) do
    for _, value in ipairs({rate.name, rate.scope, digits(rate.ceiling), digits(rate.left), digits(rate.full - now)}) do
      answer[#answer + 1] = value
    end
  end
  return answer
end

-- The state of each rate limit, or the answer to a request of more than a whole minute's images: a retry would not help.
local function look_at_rates()
  local rates = {}
  for _, scope in ipairs(scopes_of(owner)) do
    local limits = read_limits(scope)
    for _, name in ipairs(RATES) do
      local ceiling = limits[name]
      if ceiling and NEEDS[name] > ceiling then return nil, {'too_many', name, scope.kind, digits(ceiling)} end
      if ceiling then
        local rate = look_at_rate(now, scope, name, ceiling, NEEDS[name])
        rate.full = rate.before
        rates[#rates + 1] = rate
      end
    end
  end
  return rates, nil
end

-- The answer of the first limit that refuses, or nil. Writes nothing.
local function admit(rates)
  local scopes, limits = scopes_of(owner), {}
  for _, scope in ipairs(scopes) do limits[scope.name] = read_limits(scope) end
  for _, scope in ipairs(scopes) do
    local needs = {usd = (price or 0) * images, images = images}
    local refusal = over_amount(now, scope, limits[scope.name], owner, needs, ends)
    if refusal then return refusal end
  end
  for _, scope in ipairs(scopes) do
    local ceiling = limits[scope.name].concurrent_requests
    if ceiling and count_living(now, scope, worker) >= ceiling then
      return {'refused', 'concurrent_requests', scope.kind, digits(ceiling), '0', '', digits(now)}
    end
  end
  for _, rate in ipairs(rates) do
    if rate.wait > 0 then
      local left, resets = digits(rate.left), digits(now + rate.wait)
      return {'refused', rate.name, rate.scope, digits(rate.ceiling), left, resets, digits(now)}
    end
  end
  return nil
end

-- Joining. It costs no rate, no place and no money.

-- True while a request waits for a task. A waiter whose own time-out has passed does not count for a retry. A waiter whose
-- result of joining was lost has left a tombstone.
local function is_waited_for(record)
  local waiter = record.waiter or ''
  if waiter == '' or not is_living(now, record.waits_on, worker) then return false end
  if waiter ~= record.id and redis.call('HGET', NAME.hold .. ':' .. waiter, 'state') == 'closed' then return false end
  local patient_until = tonumber(record.waits_until)
  return retry == 0 or patient_until == 0 or patient_until > now
end

-- The end of the last wait: reported, or the end of its worker's lease.
local function left_at(record)
  if (record.waiter or '') == '' then return tonumber(record.left or '0') end
  return tonumber(redis.call('ZSCORE', NAME.leases, record.waits_on) or '0')
end

-- The outcome of a task by its amounts: `nothing` was accepted, it is `running`, has `succeeded` or `failed`.
local function outcome_of(record)
  local found = 'nothing'
  for _, call in pairs(record.calls) do
    -- An adopter is about to collect the results that its dead owner paid for.
    if call.state == 'held' and record.heir == '1' then return 'running' end
    if call.state == 'posted' and call.images > 0 then found = 'succeeded' end
    if call.state ~= 'void' and found == 'nothing' then found = 'failed' end
  end
  if record.state ~= 'open' then return found end
  -- Calls that a dead worker did not send are never sent.
  if found == 'nothing' and not is_living(now, record.worker, worker) then return 'nothing' end
  return 'running'
end

local function is_stale(record)
  return record.state == 'closed' and tonumber(record.ended or '0') + keep <= now
end

local function idempotency_key()
  return NAME.idempotency .. ':' .. owner.key .. ':' .. idempotency
end

-- Any number of copies with one Idempotency-Key wait for one task, and get its answer again after its end.
local function find_keyed()
  local known = redis.call('GET', idempotency_key())
  local record = known and read_task(known)
  if not record or not record.fingerprint or is_stale(record) then return nil end
  local outcome = outcome_of(record)
  if outcome == 'nothing' and record.answer ~= 'policy' then return nil end
  if record.fingerprint ~= fingerprint then return {'mismatch'} end
  return {outcome == 'running' and 'joined' or 'replay', known}
end

local function is_claimable(record)
  if is_stale(record) or is_waited_for(record) then return false end
  local last = tonumber(record.claimable_until)
  if last and last <= now then return false end
  local outcome = outcome_of(record)
  if outcome == 'nothing' then return false end
  if retry > 0 then return true end
  return outcome ~= 'failed' and left_at(record) > now - orphans
end

local has_claims = false

-- The oldest task of the same key and fingerprint whose answer no caller has; one request at a time can claim it.
local function claim()
  local index = claims_of(owner.key, fingerprint)
  for _, known in ipairs(redis.call('ZRANGE', index, '0', '99')) do
    has_claims = true
    local record = read_task(known)
    if record and record.fingerprint and (record.waiter == task or is_claimable(record)) then
      write_task(record, 'waiter', task, 'waits_on', worker, 'waits_until',
        digits(patience > 0 and now + patience or 0), 'claimable_until', '')
      store(record)
      return {'joined', known}
    end
  end
  return nil
end

local lost = forgotten(now, memory)
if lost then return lost end

-- A repetition: the first reply was lost.
local known = read_task(task)
if known then
  if known.state == 'closed' then return {'closed'} end
  if known.key ~= owner.key or known.fingerprint ~= fingerprint or known.images ~= images then return {'conflict'} end
  return add_rates({'new', known.fence}, look_at_rates() or {})
end

local same
if idempotency ~= '' then same = find_keyed() else same = claim() end
if same then return same end
if form == 'join' then return {'nothing'} end

for _, span in ipairs(SPANS) do
  if now < windows[span].start or now >= windows[span].stop then return {'window_moved', digits(now)} end
end

local rates, too_many = look_at_rates()
if too_many then return too_many end
local refusal = not price and over_unpriced(owner)
if refusal then return refusal end
refusal = admit(rates)
if refusal then return add_rates(refusal, rates) end

for _, rate in ipairs(rates) do
  redis.call('SET', rate.key, digits(rate.tat), 'PX', digits(math.ceil((rate.tat - now) / 1000)))
  rate.left, rate.full = rate.left - rate.needs, rate.tat
end
-- The next steps of a chain use this record, and need not read it.
last_read = {id = task, slots = {}, calls = {}, changes = {}}
write_task(last_read,
  'key', owner.key, 'team', owner.team, 'idempotency', idempotency, 'fingerprint', fingerprint, 'retry', digits(retry),
  'images', digits(images), 'worker', worker, 'fence', '1', 'state', 'open', 'opened', digits(now),
  'waiter', task, 'waits_on', worker, 'waits_until', digits(patience > 0 and now + patience or 0))
for _, span in ipairs(SPANS) do write_task(last_read, span, owner[span], span .. '_end', digits(ends[span])) end
for slot = 0, images - 1 do write_slot(last_read, slot, price or 0, 'free') end
if not price then write_task(last_read, 'unpriced', '1') end
last_read.images = images
store(last_read)
redis.call('ZADD', NAME.open, digits(now), task)
if idempotency ~= '' then
  redis.call('SET', idempotency_key(), task, 'PX', digits(math.floor(keep / 1000) + DAY_MS))
elseif form == 'answer' then
  local index = claims_of(owner.key, fingerprint)
  if has_claims then redis.call('ZREMRANGEBYSCORE', index, '-inf', digits(now - keep - DAY_MS * 1000)) end
  redis.call('ZADD', index, digits(now), task)
  redis.call('PEXPIRE', index, digits(math.floor(keep / 1000) + DAY_MS))
end
count_running(owner, worker, 1)
book(now, 'open', owner, {usd_held = (price or 0) * images, images_held = images}, {task = task}, windows)
return add_rates({'new', '1'}, rates)
