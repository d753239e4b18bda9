-- Returns the state of targets, and the pauses: now, labels... -> one JSON a label, in order, and the JSON of the pauses.

local now = clock(ARGV[1])
local found = {}
for index = 2, #ARGV do
  local label = label_of(ARGV[index])
  local target = read(label)
  local flat, latency = redis.call('HGETALL', key(NAME.latency, label)), {}
  for at = 1, #flat, 2 do latency[flat[at]] = flat[at + 1] end
  local presumed, brake = presumed_of(label, now)
  found[#found + 1] = cjson.encode({
    breaker = breaker_of(target, now),
    open_us = digits(math.max(number(target, 'until') - now, 0)),
    cooled_us = digits(math.max(number(target, 'cooled') - now, 0)),
    cooled_why = target.cooled_why or '',
    cooled_key = target.cooled_key or '',
    in_flight = redis.call('ZCOUNT', key(NAME.permits, label), '(' .. digits(now), '+inf'),
    presumed = digits(presumed),
    brake_us = digits(brake),
    is_low = target.low == '1',
    balance = target.balance or '',
    checked = target.checked or '',
    trouble = target.trouble or '',
    latency = next(latency) and latency or {[''] = ''},
  })
end
local flat, pauses = redis.call('HGETALL', NAME.pauses), {}
for at = 1, #flat, 2 do
  local left = pause_left(now, flat[at + 1])
  if left then pauses[flat[at]] = digits(left) end
end
found[#found + 1] = cjson.encode(pauses)
return found
