-- Stores evidence of a call's result. The first evidence stands, unless the caller names the evidence that it replaces.
-- now, task, call, kind (links, receipt, error), JSON, the JSON that it replaces or "" -> kept | other, JSON | unknown

check_clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])
local what = ARGV[4]
if what ~= 'links' and what ~= 'receipt' and what ~= 'error' then invalid('what') end
local text = object('text', ARGV[5])
local former = optional(object, 'former', ARGV[6])

if redis.call('HEXISTS', NAME.hold .. ':' .. task, 'call:' .. call) == 0 then return {'unknown'} end
local known = redis.call('HGET', NAME.call .. ':' .. call, what)
-- A repetition: the first reply was lost.
if known == text then return {'kept'} end
if known and known ~= former then return {'other', known} end
note_call(call, {'task', task, what, text})
return {'kept'}
