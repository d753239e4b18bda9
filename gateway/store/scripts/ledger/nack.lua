-- Evidence that a call was not accepted: frees its slots, or releases them if the task is closed.
-- now, task, call -> void | presumed | posted | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])

local record = read_task(task)
if not record then return {'unknown'} end
local known = record.calls[call]
if not known then
  -- A mark whose reply was lost may still arrive, and must find the call void.
  write_call(record, {
    id = call, state = 'void', price = 0, usd = 0, images = 0, slots = {}, written = '-', at = digits(now),
    policy = 'release',
  })
  store(record)
  return {'void'}
end
if known.state ~= 'held' then return {known.state} end

known.state = 'void'
write_call(record, known)
for _, slot in ipairs(known.slots) do write_slot(record, slot, record.slots[slot].held, 'free') end
store(record)
if record.state == 'closed' then
  local usd, images = release_free(record)
  store(record)
  book(now, 'release', record, {usd_held = -usd, images_held = -images}, {task = task, call = call})
  index_ended(record, now)
end
return {'void'}
