-- Ends the leases of dead workers. The end is kept: from then on nobody waits for their tasks.
-- now, workers with commas between them -> retired

local now = clock(ARGV[1])
local workers = {}
for word in string.gmatch((ARGV[2] or '') .. ',', '([^,]*),') do workers[#workers + 1] = id('worker', word) end

for _, worker in ipairs(workers) do
  local stop = redis.call('ZSCORE', NAME.leases, worker)
  if stop and tonumber(stop) > now then redis.call('ZADD', NAME.leases, digits(now), worker) end
end
return {'retired'}
