-- Tells a retry to wait before it is opened: a request waits for an equal task at a worker that may be dead. A worker that has
-- renewed its lease since the first check runs, and so does the wait.
-- now, key, fingerprint, worker, lease (µs), since when (µs) or 0, workers that run, with commas between them
-- -> may_open | wait, since when

local now = clock(ARGV[1])
local key = id('key', ARGV[2])
local fingerprint = digest('fingerprint', ARGV[3])
local worker = id('worker', ARGV[4])
local lease = integer('lease', ARGV[5], 1, 3600 * 1000000)
local since = integer('since', ARGV[6], 0, now)
local alive = {[worker] = true}
if not ARGV[7] then invalid('living') end
if ARGV[7] ~= '' then
  for word in string.gmatch(ARGV[7] .. ',', '([^,]*),') do alive[id('worker', word)] = true end
end
if since == 0 then since = now end

-- A waiter whose own time-out has passed does not count.
local function is_doubtful(record)
  local patient_until = tonumber(record.waits_until or '0')
  if (record.waiter or '') == '' or alive[record.waits_on] or patient_until ~= 0 and patient_until <= now then return false end
  local stop = tonumber(redis.call('ZSCORE', NAME.leases, record.waits_on) or '0')
  return stop > now and stop - lease < since
end

for _, known in ipairs(redis.call('ZRANGE', claims_of(key, fingerprint), '0', '99')) do
  local record = read_task(known)
  if record and record.fingerprint and is_doubtful(record) then return {'wait', digits(since)} end
end
return {'may_open'}
