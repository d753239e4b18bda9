-- Stores the record of a new task, and adds the task to its key's list.
-- task, ttl s, record, key, opened at (unix s), the most tasks in a key's list, and for a webhook: the hook as JSON, the most
-- addresses of a task, the most messages that wait for one key -> done

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local promise, key = text_of('promise', ARGV[3]), text_of('key', ARGV[4])
local opened, most = tonumber(count_of('opened', ARGV[5])), tonumber(count_of('most', ARGV[6]))

redis.call('HSET', record_of(task), 'promise', promise)
-- A request that joined a moment earlier may have added an address already.
if ARGV[7] then subscribe(task, ARGV[7], ARGV[8], ARGV[9]) end
redis.call('EXPIRE', record_of(task), ttl)
local own = NAME.tasks_of .. ':' .. key
redis.call('ZADD', own, opened, task)
redis.call('ZREMRANGEBYSCORE', own, '-inf', opened - ttl)
redis.call('ZREMRANGEBYRANK', own, 0, -most - 1)
redis.call('EXPIRE', own, ttl)
return {'done'}
