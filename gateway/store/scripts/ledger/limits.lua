-- Returns the limits of one scope. Writes nothing.
-- now, key or "", team or "" (both "": everyone) -> limits, then of each: name, value

check_clock(ARGV[1])
local owner = {key = optional(id, 'key', ARGV[2]), team = optional(label, 'team', ARGV[3], 128)}
if owner.key ~= '' and owner.team ~= '' then invalid('team') end
local answer = {'limits'}
local flat = redis.call('HGETALL', NAME.limits .. ':' .. scopes_of(owner)[1].name)
for _, word in ipairs(flat) do answer[#answer + 1] = word end
return answer
