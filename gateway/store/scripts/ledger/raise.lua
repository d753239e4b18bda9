-- Raises the held price of unsent slots, before a dearer target is tried.
-- now, task, µ$ an image or "", fence, memory (3)
-- -> raised | refused, limit, scope, ceiling, left, resets, now | unpriced, limit, scope | fenced, fence | closed
--  | unknown | lost, epoch, now

local now = clock(ARGV[1])
local task = id('task', ARGV[2])
local price = price_of(ARGV[3])
local fence = integer('fence', ARGV[4], 1, LARGEST)
local memory = read_memory(5)

local lost = forgotten(now, memory)
if lost then return lost end

local record = read_task(task)
local stranger = not_owned(record, fence)
if stranger then return stranger end
if record.state == 'closed' then return {'closed'} end

if not price then
  local refusal = not record.unpriced and over_unpriced(record)
  if refusal then return refusal end
  -- The held amounts stay. `mark_sent` checks that the owner asked.
  write_task(record, 'unpriced', '1')
  store(record)
  return {'raised'}
end

local more, lifted = 0, {}
for slot = 0, record.images - 1 do
  local found = record.slots[slot]
  if found.by == 'free' and found.held < price then
    more = more + price - found.held
    lifted[#lifted + 1] = slot
  end
end
-- Nothing to raise, or a repetition.
if more == 0 then return {'raised'} end

local ends = {}
for _, span in ipairs(SPANS) do ends[span] = tonumber(record[span .. '_end']) end
for _, scope in ipairs(scopes_of(record)) do
  local refusal = over_amount(now, scope, read_limits(scope), record, {usd = more}, ends)
  if refusal then return refusal end
end

for _, slot in ipairs(lifted) do write_slot(record, slot, price, 'free') end
store(record)
book(now, 'raise', record, {usd_held = more}, {task = task})
return {'raised'}
