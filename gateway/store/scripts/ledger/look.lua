-- Returns the limits of up to three scopes with their use, and the spent amounts of each scope. Writes nothing.
-- now, key or "", team or "", windows (9)
-- -> looked, now, number of limits, of each: name, scope, ceiling, used, left, time of its reset (µs) or "";
--    then of each scope and window: scope, window, the six amounts
--  | window_moved, now

local now = clock(ARGV[1])
local owner = {key = optional(id, 'key', ARGV[2]), team = optional(label, 'team', ARGV[3], 128)}
local windows = read_windows(4)
for _, span in ipairs(SPANS) do owner[span] = windows[span].name end
for _, span in ipairs(SPANS) do
  if now < windows[span].start or now >= windows[span].stop then return {'window_moved', digits(now)} end
end

local standings, spent = {}, {}

local function stand(name, scope, ceiling, used, resets)
  local left = math.max(0, ceiling - used)
  for _, word in ipairs({name, scope.kind, digits(ceiling), digits(used), digits(left), resets}) do
    standings[#standings + 1] = word
  end
end

local function look_at_window(scope, span, limits)
  local sums, row = {}, redis.call('HMGET', window_key(scope, owner[span] or 'total'), unpack(AMOUNTS))
  spent[#spent + 1], spent[#spent + 2] = scope.kind, span
  for index, amount in ipairs(AMOUNTS) do
    sums[amount] = tonumber(row[index]) or 0
    spent[#spent + 1] = digits(sums[amount])
  end
  for _, limit in ipairs(AMOUNT_LIMITS) do
    local ceiling, unit = limits[limit.name], limit.unit
    if ceiling and (limit.span or 'total') == span then
      local used = sums[unit .. '_held'] + sums[unit .. '_presumed'] + sums[unit .. '_posted']
      stand(limit.name, scope, ceiling, used, limit.span and digits(windows[span].stop) or '')
    end
  end
end

for _, scope in ipairs(scopes_of(owner)) do
  local limits = read_limits(scope)
  for _, span in ipairs({'total', 'month', 'week', 'day'}) do look_at_window(scope, span, limits) end
  local ceiling = limits.concurrent_requests
  if ceiling then stand('concurrent_requests', scope, ceiling, count_living(now, scope, ''), '') end
  for _, name in ipairs(RATES) do
    if limits[name] then
      local rate = look_at_rate(now, scope, name, limits[name], 0)
      stand(name, scope, limits[name], limits[name] - rate.left, digits(rate.before))
    end
  end
end

local answer = {'looked', digits(now), digits(#standings / 6)}
for _, words in ipairs({standings, spent}) do
  for _, word in ipairs(words) do answer[#answer + 1] = word end
end
return answer
