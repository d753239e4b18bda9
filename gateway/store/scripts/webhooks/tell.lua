-- Queues what an ended task's addresses are to be told, once; runs in the transaction that writes the end.
-- now, task, how many may wait for one key -> how many were queued

return tell(ARGV[2], integer('room', ARGV[3], 1), clock(ARGV[1]))
