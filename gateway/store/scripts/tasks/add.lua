-- Writes down images that are stored.
-- task, ttl s, changes that are told at most, then pairs of a slot and its image -> done

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local told = count_of('told', ARGV[3])
check_images(4)

put(task, ttl, told, 4)
return {'done'}
