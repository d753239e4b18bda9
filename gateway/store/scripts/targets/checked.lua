-- Stores the result of a free check: now, label, its trouble or "", credits or "", below the floor 1 or 0, cool-down µs
-- -> done, low or cooled if that is new, or ""

local now, label = clock(ARGV[1]), label_of(ARGV[2])
local trouble, balance, low = ARGV[3], ARGV[4], ARGV[5]
if low ~= '0' and low ~= '1' then invalid('low') end
local cool = integer('cool', ARGV[6], 0)
local target, name = read(label), key(NAME.target, label)
local change = ''
redis.call('HSET', name, 'checked', digits(now), 'trouble', trouble)
if balance ~= '' then
  if low == '1' and target.low ~= '1' then change = 'low' end
  redis.call('HSET', name, 'balance', balance, 'low', low)
end
if cool > 0 then
  if number(target, 'cooled') <= now or target.cooled_why ~= 'credential' then change = 'credential' end
  redis.call('HSET', name, 'cooled', digits(math.max(number(target, 'cooled'), now + cool)), 'cooled_why', 'credential')
end
keep(label)
return {'done', change}
