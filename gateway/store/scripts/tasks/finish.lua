-- Writes down how a task ended, with all its images; the first end stands. A task whose worker died before its promise
-- was written is known by its end all the same.
-- task, ttl s, changes that are told at most, promise, end, how many messages may wait for one key, then pairs of a slot
-- and its image -> done, the end that stands, how many messages were queued

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local told = count_of('told', ARGV[3])
local promise, ended = text_of('promise', ARGV[4]), text_of('end', ARGV[5])
local room = integer('room', ARGV[6], 1)
check_images(7)

redis.call('HSETNX', record_of(task), 'promise', promise)
redis.call('HSETNX', record_of(task), 'end', ended)
put(task, ttl, told, 7)
return {'done', redis.call('HGET', record_of(task), 'end'), digits(tell(task, room, clock('')))}
