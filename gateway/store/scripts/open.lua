-- Admits a new task and holds its price in every limit, or in none.
-- now, task, key, team or "", idempotency digest or "", fingerprint, retry count, µ$ an image or "", images, worker,
-- memory (3), windows (9)
-- -> new, fence, rates | refused, limit, scope, ceiling, left, when it resets (µs) or "", now, rates
--  | too_many, limit, scope, ceiling | unpriced, limit, scope | window_moved, now | lost, epoch, now | closed
--  | conflict
-- where of each rate: name, scope, limit, left, µs until it is full again

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local owner = {key = id('key', ARGV[3]), team = optional(label, 'team', ARGV[4], 128)}
local idempotency = optional(digest, 'idempotency', ARGV[5])
local fingerprint = digest('fingerprint', ARGV[6])
local retry = integer('retry', ARGV[7], 0, 1000)
local price = price_of(ARGV[8])
local images = integer('images', ARGV[9], 1, MOST_IMAGES)
local worker = id('worker', ARGV[10])
local memory = read_memory(11)
local windows = read_windows(14)
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

-- Each rate that is limited, as it stands, or the answer to more than a minute ever allows: waiting would not help.
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

-- The answer of the first limit that refuses, or nil. Nothing is written here.
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

local lost = forgotten(now, memory)
if lost then return lost end

-- Asked before: the reply was lost.
local known = read_task(task)
if known then
  if known.state == 'closed' then return {'closed'} end
  if known.key ~= owner.key or known.fingerprint ~= fingerprint or known.images ~= images then return {'conflict'} end
  return add_rates({'new', known.fence}, look_at_rates() or {})
end

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
local fields = {
  'key', owner.key, 'team', owner.team, 'idempotency', idempotency, 'fingerprint', fingerprint, 'retry', digits(retry),
  'images', digits(images), 'worker', worker, 'fence', '1', 'state', 'open', 'opened', digits(now),
}
for _, span in ipairs(SPANS) do
  fields[#fields + 1], fields[#fields + 2] = span, owner[span]
  fields[#fields + 1], fields[#fields + 2] = span .. '_end', digits(ends[span])
end
for slot = 0, images - 1 do
  fields[#fields + 1], fields[#fields + 2] = 'slot:' .. digits(slot), digits(price or 0) .. ' free'
end
if not price then fields[#fields + 1], fields[#fields + 2] = 'unpriced', '1' end
redis.call('HSET', NAME.hold .. ':' .. task, unpack(fields))
redis.call('ZADD', NAME.open, digits(now), task)
count_running(owner, worker, 1)
book(now, 'open', owner, {usd_held = (price or 0) * images, images_held = images}, {task = task})
keep_windows(now, owner, windows)
return add_rates({'new', '1'}, rates)
