-- Settles a call of unknown outcome at its target's price, until evidence arrives.
-- now, task, call, fence -> presumed, µ$, images | void | posted | fenced, fence | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])
local fence = integer('fence', ARGV[4], 1, LARGEST)

local record = read_task(task)
local stranger = not_owned(record, fence)
if stranger then return stranger end
local known = record.calls[call]
if not known then return {'unknown'} end
if known.state ~= 'held' then return {known.state, digits(known.usd), digits(known.images)} end

local held, slots = take_held(record, known)
known.state, known.usd, known.images = 'presumed', known.price, #known.slots
write_call(record, known)
store(record)
book(now, 'presume', record, {
  usd_held = -held, images_held = -slots, usd_presumed = known.usd, images_presumed = known.images,
}, {task = task, call = call})
index_ended(record, now)
return {'presumed', digits(known.usd), digits(known.images)}
