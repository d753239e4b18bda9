-- Stores the result of one attempt. An attempt whose delivery another process has finished changes nothing.
-- now, id, done | later | lost, ms until the next attempt, why, the body to send again -> done | gone

local now, id, what = clock(ARGV[1]), ARGV[2], ARGV[3]
local pause, why, body = integer('pause', ARGV[4], 0), ARGV[5], ARGV[6]
local known = redis.call('HMGET', delivery(id), 'key', 'state')
local key = known[1]
if not key or known[2] ~= 'waiting' then return {'gone'} end
if what == 'done' then
  redis.call('DEL', delivery(id))
  forget(id, key)
  return {'done'}
end
if body ~= '' then redis.call('HSET', delivery(id), 'body', body) end
if what == 'later' then
  redis.call('HSET', delivery(id), 'why', why)
  wait(id, key, now + pause)
elseif what == 'lost' then
  lose(id, key, now, why)
else
  invalid('what')
end
return {'done'}
