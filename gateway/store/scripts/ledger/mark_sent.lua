-- Gives free slots to one paid call, before its first byte, and stores the facts by which another process can finish it. Only
-- after the answer `held` may it be sent.
-- now, task, call, slots, µ$ an image at this target or "", fence, policy, a note as JSON or "", memory (3)
-- -> held | taken | underheld | conflict | void | presumed | posted | fenced, fence | closed | unknown
--  | lost, epoch, now

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])
slot_list(ARGV[4], MOST_IMAGES)
local price = price_of(ARGV[5])
local fence = integer('fence', ARGV[6], 1, LARGEST)
local policy = ARGV[7]
if policy ~= 'presume' and policy ~= 'release' and policy ~= 'hold' then invalid('policy') end
local note = optional(object, 'note', ARGV[8])
local memory = read_memory(9)

local lost = forgotten(now, memory)
if lost then return lost end

local record = read_task(task)
local stranger = not_owned(record, fence)
if stranger then return stranger end

local known = record.calls[call]
if known then
  -- A repetition. A call that was nacked meanwhile, even before this arrived, is not sent.
  if known.state == 'held' and known.written ~= ARGV[4] then return {'conflict'} end
  return {known.state}
end
if record.state == 'closed' then return {'closed'} end
local slots = slot_list(ARGV[4], record.images)
for _, slot in ipairs(slots) do
  if record.slots[slot].by ~= 'free' then return {'taken'} end
  if price and record.slots[slot].held < price then return {'underheld'} end
end
-- The limits in dollars must have allowed an unknown price.
if not price and not record.unpriced then return {'underheld'} end

for _, slot in ipairs(slots) do write_slot(record, slot, record.slots[slot].held, call) end
write_call(record, {
  id = call, state = 'held', price = (price or 0) * #slots, usd = 0, images = 0, slots = slots, written = ARGV[4],
  at = digits(now), policy = policy,
})
store(record)
if note ~= '' then note_call(call, {'task', task, 'note', note}) end
return {'held'}
