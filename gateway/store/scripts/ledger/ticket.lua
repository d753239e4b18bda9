-- Evidence of the ticket that a vendor gave for a call, from any source. A call has one ticket, and a ticket belongs to one
-- call.
-- now, task, call, upstream, credential, ticket, the path to poll or ""
-- -> bound | other, ticket (the call has that one) | taken, task, call (the ticket belongs to that one) | unknown

local LONGEST_TICKET = 1048576 -- bytes
local LONGEST_PATH = 4194304 -- the same in a URL's escapes

check_clock(ARGV[1])
local task = id('task', ARGV[2])
local call = id('call', ARGV[3])
local place = NAME.ticket .. ':' .. label('upstream', ARGV[4], 100) .. ':' .. label('credential', ARGV[5], 100)
local ticket = ARGV[6]
local path = ARGV[7]
-- Any id that a vendor gave is kept: it is the way to a paid picture. A long one is named by its digest.
if not ticket or #ticket == 0 or #ticket > LONGEST_TICKET then invalid('ticket') end
if not path or #path > LONGEST_PATH or not (path == '' or string.match(path, '^/%C*$')) then invalid('path') end
local name = #ticket > 200 and 'sha1:' .. redis.sha1hex(ticket) or ticket

if redis.call('HEXISTS', NAME.hold .. ':' .. task, 'call:' .. call) == 0 then return {'unknown'} end
local known = redis.call('HGET', NAME.call .. ':' .. call, 'ticket')
if known then
  -- A repetition, or the same ticket from another source.
  if known == ticket then return {'bound'} end
  return {'other', known}
end
local holder = redis.call('GET', place .. ':' .. name)
if holder and holder ~= task .. ' ' .. call then
  local other_task, other_call = string.match(holder, '^(%S+) (%S+)$')
  return {'taken', other_task, other_call}
end

redis.call('SET', place .. ':' .. name, task .. ' ' .. call, 'PX', digits(CALL_KEPT_MS))
note_call(call, {'task', task, 'ticket', ticket, 'path', path})
return {'bound'}
