-- Writes a promise down, and puts the task on its key's list.
-- task, ttl s, promise, key, opened at (unix s), most that a key's list holds -> done

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local promise, key = text_of('promise', ARGV[3]), text_of('key', ARGV[4])
local opened, most = tonumber(count_of('opened', ARGV[5])), tonumber(count_of('most', ARGV[6]))

redis.call('HSET', record_of(task), 'promise', promise)
redis.call('EXPIRE', record_of(task), ttl)
local own = NAME.tasks_of .. ':' .. key
redis.call('ZADD', own, opened, task)
redis.call('ZREMRANGEBYSCORE', own, '-inf', opened - ttl)
redis.call('ZREMRANGEBYRANK', own, 0, -most - 1)
redis.call('EXPIRE', own, ttl)
return {'done'}
