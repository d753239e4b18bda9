-- Stores the result of a free check: now, label, its trouble or "", credits or "", below the floor 1 or 0, cool-down µs,
-- digest of the key or ""
-- -> done, low or cooled if that is new, or ""

local now, label = clock(ARGV[1]), label_of(ARGV[2])
local trouble, balance, low = ARGV[3], ARGV[4], ARGV[5]
if low ~= '0' and low ~= '1' then invalid('low') end
local cool, used = integer('cool', ARGV[6], 0), digest_of(ARGV[7])
local target, name = read(label), key(NAME.target, label)
local change = ''
redis.call('HSET', name, 'checked', digits(now), 'trouble', trouble)
if balance ~= '' then
  if low == '1' and target.low ~= '1' then change = 'low' end
  redis.call('HSET', name, 'balance', balance, 'low', low)
end
local last = cooled_of(target, used)
if cool > 0 then
  if last <= now or target.cooled_why ~= 'credential' then change = 'credential' end
  local stop = digits(math.max(last, now + cool))
  redis.call('HSET', name, 'cooled', stop, 'cooled_why', 'credential', 'cooled_key', used)
elseif trouble == '' and last < number(target, 'cooled') then
  -- Another key was rejected, and this one works.
  redis.call('HDEL', name, 'cooled', 'cooled_why', 'cooled_key')
end
keep(NAME.target, label)
return {'done', change}
