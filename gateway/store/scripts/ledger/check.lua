-- Checks that the store has all that the calling process knows of: now, memory (3) -> known | lost, epoch, now

local now = clock(ARGV[1])
return forgotten(now, read_memory(2)) or {'known'}
