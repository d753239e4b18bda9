-- Corrects a spent amount for an operator; negative is a credit.
-- now, change, key or "", team or "", windows (9), µ$, reason -> adjusted | conflict

local now = clock(ARGV[1])
local change = id('change', ARGV[2])
local owner = {key = optional(id, 'key', ARGV[3]), team = optional(label, 'team', ARGV[4], 128)}
local windows = read_windows(5)
for _, span in ipairs(SPANS) do
  owner[span] = windows[span].name
  -- The total would expire before its journal entry.
  if windows[span].stop + WINDOW_KEPT_MS * 1000 <= now then invalid(span .. '_end') end
end
local usd = integer('usd', ARGV[14], -MOST_USD * MOST_IMAGES, MOST_USD * MOST_IMAGES)
if usd == 0 then invalid('usd') end
local reason = label('reason', ARGV[15], 500)

local asked = table.concat({'adjust', owner.key, owner.team, owner.day, ARGV[14], reason}, '\n')
local made = redis.call('GET', NAME.change .. ':' .. change)
if made then return {made == asked and 'adjusted' or 'conflict'} end

redis.call('SET', NAME.change .. ':' .. change, asked, 'PX', digits(DAY_MS))
book(now, 'adjust', owner, {usd_posted = usd}, {change = change, reason = reason}, windows)
-- No task has this amount, so it is part of the base from the start.
for _, scope in ipairs(scopes_of(owner)) do
  for _, window in ipairs({owner.day, owner.week, owner.month, 'total'}) do
    redis.call('HINCRBY', window_key(scope, window), 'folded:usd_posted', digits(usd))
  end
end
return {'adjusted'}
