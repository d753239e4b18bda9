-- Admits a new task and holds its price in every limit, or in none.
-- now, task, key, team or "", idempotency digest or "", fingerprint, retry count, µ$ an image, images, worker, windows (9)
-- -> new, fence, then of each rate: name, scope, limit, left, µs until it is full again
--  | refused, limit, scope, ceiling, left, when it resets (µs) or "" | too_many, limit, scope, ceiling
--  | window_moved, now | closed | conflict

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local owner = {key = id('key', ARGV[3]), team = optional(label, 'team', ARGV[4], 128)}
local idempotency = optional(digest, 'idempotency', ARGV[5])
local fingerprint = digest('fingerprint', ARGV[6])
local retry = integer('retry', ARGV[7], 0, 1000)
local price = integer('price', ARGV[8], 0, MOST_USD)
local images = integer('images', ARGV[9], 1, MOST_IMAGES)
local worker = id('worker', ARGV[10])
local windows = read_windows(11)
local ends = {}
for _, span in ipairs(SPANS) do
  owner[span] = windows[span].name
  ends[span] = windows[span].stop
end

local RATES = {{name = 'requests_minute', needs = 1}, {name = 'images_minute', needs = images}}

-- GCRA. `tat` is when the bucket would be full again; a limit of L a minute lets L go at once, then one every interval.
local function look_at_rate(scope, rate, ceiling)
  local interval = math.ceil(MINUTE / ceiling)
  local key = NAME.rate .. ':' .. scope.name .. ':' .. rate.name
  local before = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local tat = before + rate.needs * interval
  local wait = tat - now - ceiling * interval
  local left = math.max(0, math.floor((ceiling * interval - (before - now)) / interval))
  return {key = key, tat = tat, wait = wait, left = left, name = rate.name, scope = scope.kind, ceiling = ceiling,
    needs = rate.needs}
end

-- A worker whose lease has ended runs nothing: its tasks are the resolver's, or are about to be adopted.
local function count_living(scope)
  local running, flat = 0, redis.call('HGETALL', NAME.running .. ':' .. scope.name)
  for index = 1, #flat, 2 do
    local lease = tonumber(redis.call('ZSCORE', NAME.leases, flat[index]) or '0')
    if flat[index] == worker or lease > now then running = running + tonumber(flat[index + 1]) end
  end
  return running
end

local function answer_new(fence, rates)
  local answer = {'new', fence}
  for _, rate in ipairs(rates) do
    for _, value in ipairs({rate.name, rate.scope, digits(rate.ceiling), digits(rate.left), digits(rate.tat - now)}) do
      answer[#answer + 1] = value
    end
  end
  return answer
end

-- The first limit that refuses, or the rates to move on. Nothing is written here.
local function admit()
  local scopes, limits, rates = scopes_of(owner), {}, {}
  for _, scope in ipairs(scopes) do
    limits[scope.name] = read_limits(scope)
    for _, rate in ipairs(RATES) do
      local ceiling = limits[scope.name][rate.name]
      -- Waiting would never help.
      if ceiling and rate.needs > ceiling then return {'too_many', rate.name, scope.kind, digits(ceiling)} end
      if ceiling then rates[#rates + 1] = look_at_rate(scope, rate, ceiling) end
    end
  end
  for _, scope in ipairs(scopes) do
    local refusal = over_amount(scope, limits[scope.name], owner, {usd = price * images, images = images}, ends)
    if refusal then return refusal end
  end
  for _, scope in ipairs(scopes) do
    local ceiling = limits[scope.name].concurrent_requests
    local running = ceiling and count_living(scope)
    if ceiling and running >= ceiling then
      return {'refused', 'concurrent_requests', scope.kind, digits(ceiling), '0', ''}
    end
  end
  for _, rate in ipairs(rates) do
    if rate.wait > 0 then
      return {'refused', rate.name, rate.scope, digits(rate.ceiling), digits(rate.left), digits(now + rate.wait)}
    end
  end
  return nil, rates
end

-- Asked before: the reply was lost.
local known = read_task(task)
if known then
  if known.state == 'closed' then return {'closed'} end
  if known.key ~= owner.key or known.fingerprint ~= fingerprint or known.images ~= images then return {'conflict'} end
  return answer_new(known.fence, {})
end

for _, span in ipairs(SPANS) do
  if now < windows[span].start or now >= windows[span].stop then return {'window_moved', digits(now)} end
end

local refusal, rates = admit()
if refusal then return refusal end

for _, rate in ipairs(rates) do
  redis.call('SET', rate.key, digits(rate.tat), 'PX', digits(math.ceil((rate.tat - now) / 1000)))
  rate.left = rate.left - rate.needs
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
  fields[#fields + 1], fields[#fields + 2] = 'slot:' .. digits(slot), digits(price) .. ' free'
end
redis.call('HSET', NAME.hold .. ':' .. task, unpack(fields))
count_running(owner, worker, 1)
book(now, 'open', owner, {usd_held = price * images, images_held = images}, {task = task})
keep_windows(now, owner, windows)
return answer_new('1', rates)
