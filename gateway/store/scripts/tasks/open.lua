-- Writes a promise down, and puts the task on its key's list.
-- task, ttl s, promise, key, opened at (unix s), most that a key's list holds, and where somebody is told of the end: the
-- hook as JSON, the most addresses of a task, how many may wait for one key -> done

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local promise, key = text_of('promise', ARGV[3]), text_of('key', ARGV[4])
local opened, most = tonumber(count_of('opened', ARGV[5])), tonumber(count_of('most', ARGV[6]))

redis.call('HSET', record_of(task), 'promise', promise)
-- Whoever joined in the moment before this may have added an address already.
if ARGV[7] then subscribe(task, ARGV[7], ARGV[8], ARGV[9]) end
redis.call('EXPIRE', record_of(task), ttl)
local own = NAME.tasks_of .. ':' .. key
redis.call('ZADD', own, opened, task)
redis.call('ZREMRANGEBYSCORE', own, '-inf', opened - ttl)
redis.call('ZREMRANGEBYRANK', own, 0, -most - 1)
redis.call('EXPIRE', own, ttl)
return {'done'}
