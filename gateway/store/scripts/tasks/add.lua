-- Stores the images of a task.
-- task, ttl s, the most changes in the stream, then pairs of a slot and its image -> done

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local told = count_of('told', ARGV[3])
check_images(4)

put(task, read(task), {}, ttl, told, 4)
return {'done'}
