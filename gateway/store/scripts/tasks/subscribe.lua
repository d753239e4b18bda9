-- Adds an address to a task that another request began; if the task has ended, the message is queued at once.
-- task, ttl s, the hook as JSON, the most addresses of a task, the most messages that wait for one key -> done, number of
-- queued messages | full

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local queued = subscribe(task, ARGV[3], ARGV[4], ARGV[5])
if not queued then return {'full'} end
if redis.call('TTL', record_of(task)) < 0 then redis.call('EXPIRE', record_of(task), ttl) end
return {'done', digits(queued)}
