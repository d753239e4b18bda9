-- Adds an address to a task that another request began; of one that has ended it is told at once. The same address is
-- told once, however many ask.
-- now, task, the hook as JSON, the most addresses of a task, how many may wait for one key, the record's lifetime (s)
-- -> done, how many were queued | full

local now, task, hook = clock(ARGV[1]), ARGV[2], cjson.decode(ARGV[3])
local most, room, lifetime = integer('most', ARGV[4], 1), integer('room', ARGV[5], 1), integer('lifetime', ARGV[6], 1)
local name = NAME.task .. ':' .. task
local hooks = cjson.decode(redis.call('HGET', name, 'hooks') or '[]')
for _, known in ipairs(hooks) do
  if known.url == hook.url then return {'done', '0'} end
end
if #hooks >= most then return {'full'} end
hooks[#hooks + 1] = hook
redis.call('HSET', name, 'hooks', cjson.encode(hooks))
if redis.call('TTL', name) < 0 then redis.call('EXPIRE', name, lifetime) end
return {'done', digits(tell(task, room, now))}
