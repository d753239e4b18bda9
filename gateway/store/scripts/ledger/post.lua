-- Evidence of the real cost and images of a call, at any time: it replaces a presumed amount and a wrong nack.
-- now, task, call, µ$, images -> posted, µ$ counted, images counted | unknown

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])
local usd = integer('usd', ARGV[4], 0, MOST_USD * MOST_IMAGES)
local images = integer('images', ARGV[5], 0, MOST_IMAGES)

local record = read_task(task)
local known = record and record.calls[call]
if not known then return {'unknown'} end
-- The call was never marked, so it was never sent: it cannot have cost anything.
if #known.slots == 0 then return {'unknown'} end
if images > #known.slots then invalid('images') end
if known.state == 'posted' then return {'posted', digits(known.usd), digits(known.images)} end

local deltas = {usd_posted = usd, images_posted = images}
if known.state == 'presumed' then
  deltas.usd_presumed, deltas.images_presumed = -known.usd, -known.images
else
  local held, slots = take_held(record, known)
  deltas.usd_held, deltas.images_held = -held, -slots
end
known.state, known.usd, known.images = 'posted', usd, images
write_call(record, known)
store(record)
book(now, 'post', record, deltas, {task = task, call = call})
index_ended(record, now)
return {'posted', digits(usd), digits(images)}
