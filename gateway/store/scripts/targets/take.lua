-- Permits one call at a target, or returns the reason against it. A repetition with the same permit gets the same answer.
-- now, label, permit, lease µs, the most at a time (0: any), the most a minute (0: any), presumed µ$ an hour ("": any),
-- floor 1 or 0, digest of the key or "", name of the upstream or "" -> taken | <reason>, µs until another attempt

local now = clock(ARGV[1])
local label, permit = label_of(ARGV[2]), permit_of(ARGV[3])
local lease = integer('lease', ARGV[4], 1)
local most, per_minute = integer('most', ARGV[5], 0), integer('per_minute', ARGV[6], 0)
local brake = ARGV[7] ~= '' and integer('brake', ARGV[7], 0) or nil
local has_floor = ARGV[8] == '1'
local used = digest_of(ARGV[9])

local permits = key(NAME.permits, label)
if redis.call('ZSCORE', permits, permit) then return {'taken'} end

local pause = ARGV[10] ~= '' and pause_left(now, redis.call('HGET', NAME.pauses, 'upstream:' .. ARGV[10]))
if pause then return {'paused', digits(pause)} end

local target = read(label)
local state = breaker_of(target, now)
if state == 'open' then return {'open', digits(number(target, 'until') - now)} end
local cooled = cooled_of(target, used)
if cooled > now then return {target.cooled_why, digits(cooled - now)} end
if has_floor and target.low == '1' then return {'low', '0'} end
if brake then
  local presumed, wait = presumed_of(label, now)
  if presumed > brake then return {'braked', digits(wait)} end
end
-- The places of a dead worker's calls are free when its lease ends.
if most > 0 or state == 'half' then redis.call('ZREMRANGEBYSCORE', permits, '-inf', digits(now)) end
if state == 'half' and target.probe and redis.call('ZSCORE', permits, target.probe) then return {'probing', '0'} end
if most > 0 and redis.call('ZCARD', permits) >= most then return {'full', '0'} end
if per_minute > 0 then
  local arrival = math.max(number(target, 'arrival'), now) + 60000000 / per_minute
  if arrival - now > 60000000 then return {'busy', digits(arrival - now - 60000000)} end
  redis.call('HSET', key(NAME.target, label), 'arrival', digits(arrival))
  keep(NAME.target, label)
end
redis.call('ZADD', permits, digits(now + lease), permit)
if state == 'half' then redis.call('HSET', key(NAME.target, label), 'probe', permit) end
keep(NAME.permits, label)
return {'taken'}
