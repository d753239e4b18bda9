-- Sets or removes one limit of one scope.
-- now, change, key or "", team or "" (both "": everyone), limit, value or "" -> set | conflict

local RATE_NAMES = {requests_minute = true, images_minute = true}
local OTHER_NAMES = {
  usd_total = true, usd_month = true, usd_week = true, usd_day = true, images_month = true, images_day = true,
  concurrent_requests = true,
}

check_clock(ARGV[1])
local change = id('change', ARGV[2])
local owner = {key = optional(id, 'key', ARGV[3]), team = optional(label, 'team', ARGV[4], 128)}
if owner.key ~= '' and owner.team ~= '' then invalid('team') end
local limit, value = ARGV[5], ARGV[6]
if not RATE_NAMES[limit] and not OTHER_NAMES[limit] then invalid('limit') end
-- A rate of 0 would never reset; disable the key instead.
if value ~= '' then integer('value', value, RATE_NAMES[limit] and 1 or 0, RATE_NAMES[limit] and MINUTE or LARGEST) end

local scope = scopes_of(owner)[1]
local asked = table.concat({'set_limit', scope.name, limit, value}, '\n')
local made = redis.call('GET', NAME.change .. ':' .. change)
if made then return {made == asked and 'set' or 'conflict'} end

redis.call('SET', NAME.change .. ':' .. change, asked, 'PX', digits(DAY_MS))
if value == '' then
  redis.call('HDEL', NAME.limits .. ':' .. scope.name, limit)
else
  redis.call('HSET', NAME.limits .. ':' .. scope.name, limit, value)
end
return {'set'}
