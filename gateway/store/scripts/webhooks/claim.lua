-- Takes due deliveries, one of each key, for the time of a lease; after it another process can take them.
-- now, the lease (ms), the most to take, keys to skip -> ms until the next is due or "", then each as JSON

local KEYS_SEEN = 200

local now, lease, most = clock(ARGV[1]), integer('lease', ARGV[2], 1), integer('most', ARGV[3], 0)
local passed, found = {}, {''}
for index = 4, #ARGV do passed[ARGV[index]] = true end

for _, key in ipairs(redis.call('ZRANGEBYSCORE', NAME.webhooks, '-inf', digits(now), 'LIMIT', 0, KEYS_SEEN + #ARGV)) do
  if #found > most then break end
  if not passed[key] then
    local id = redis.call('ZRANGE', waiting_of(key), 0, 0)[1]
    local flat, facts = id and redis.call('HGETALL', delivery(id)) or {}, {}
    for index = 1, #flat, 2 do facts[flat[index]] = flat[index + 1] end
    if facts.id then
      facts.tries = digits(redis.call('HINCRBY', delivery(id), 'tries', 1))
      wait(id, key, now + lease)
      found[#found + 1] = cjson.encode(facts)
    elseif id then
      forget(id, key)
    else
      line_up(key)
    end
  end
end

local first = redis.call('ZRANGEBYSCORE', NAME.webhooks, '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if first[2] then found[1] = digits(tonumber(first[2]) - now) end
return found
