-- Checks that the store takes changes, and has all that the calling process knows of.
-- now, memory (3) -> known | lost, epoch, now

local now = clock(ARGV[1])
local memory = read_memory(2)
-- It changes nothing, since no worker has this name. A store that is full or read-only refuses it.
redis.call('ZADD', NAME.leases, 'XX', '0', 'nobody')
return forgotten(now, memory) or {'known'}
