-- Functions shared by the scripts of the webhooks. The loader puts NAME before this text. Times are ms since 1970.

local LARGEST = 9007199254740991
local KEPT_S = 7 * 24 * 3600
local MOST_LOST = 10000

local function digits(number)
  return string.format('%.0f', number)
end

local function invalid(what)
  error('INVALID ' .. what, 0)
end

local function integer(what, value, lowest)
  if value ~= '0' and not string.match(value or '', '^%-?[1-9]%d*$') then invalid(what) end
  -- A number that a double cannot hold is read as one larger than LARGEST.
  local number = tonumber(value)
  if number < lowest or number > LARGEST then invalid(what) end
  return number
end

local function clock(value)
  if value ~= '' then return integer('now', value, 1) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function delivery(id)
  return NAME.webhook .. ':' .. id
end

local function waiting_of(key)
  return NAME.webhooks_of .. ':' .. key
end

-- The list of all keys is ordered by each key's earliest delivery, so that keys take turns.
local function line_up(key)
  local first = redis.call('ZRANGE', waiting_of(key), 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', NAME.webhooks, first[2], key)
  else
    redis.call('ZREM', NAME.webhooks, key)
  end
end

local function wait(id, key, due)
  redis.call('ZADD', waiting_of(key), digits(due), id)
  redis.call('PERSIST', delivery(id))
  line_up(key)
end

local function forget(id, key)
  redis.call('ZREM', waiting_of(key), id)
  line_up(key)
end

local function lose(id, key, now, why)
  forget(id, key)
  redis.call('HSET', delivery(id), 'state', 'lost', 'why', why)
  redis.call('EXPIRE', delivery(id), KEPT_S)
  redis.call('ZADD', NAME.webhooks_lost, digits(now), id)
  redis.call('ZREMRANGEBYSCORE', NAME.webhooks_lost, '-inf', digits(now - KEPT_S * 1000))
  for _, old in ipairs(redis.call('ZRANGE', NAME.webhooks_lost, 0, -MOST_LOST - 1)) do
    redis.call('DEL', delivery(old))
    redis.call('ZREM', NAME.webhooks_lost, old)
  end
end

local function queue(hook, id, task, room, now)
  redis.call('HSET', delivery(id), 'id', id, 'task', task, 'key', hook.key, 'url', hook.url, 'base_url', hook.base_url,
    'created', digits(now), 'tries', '0', 'state', 'waiting', 'why', '')
  if redis.call('ZCARD', waiting_of(hook.key)) >= room then
    lose(id, hook.key, now, 'too many wait for this key')
  else
    wait(id, hook.key, now)
  end
end

-- Queues a delivery for each new address of an ended task, and another, with an id of its own, for each address that got a
-- wrong guess; returns their number.
local function tell(task, room, now)
  local name = NAME.task .. ':' .. task
  local facts = redis.call('HMGET', name, 'hooks', 'end', 'guess', 'told', 'corrected')
  if not facts[1] or not (facts[2] or facts[3]) then return 0 end
  local hooks, told, corrected = cjson.decode(facts[1]), tonumber(facts[4] or '0'), tonumber(facts[5] or '0')
  local is_corrected = facts[2] and facts[3] and cjson.decode(facts[2]).status ~= cjson.decode(facts[3]).status
  local queued = 0
  for index = corrected + 1, is_corrected and told or 0 do
    queue(hooks[index], hooks[index].id .. '_corrected', task, room, now)
    queued = queued + 1
  end
  for index = told + 1, #hooks do
    queue(hooks[index], hooks[index].id, task, room, now)
    queued = queued + 1
  end
  if queued > 0 then redis.call('HSET', name, 'told', #hooks, 'corrected', is_corrected and #hooks or corrected) end
  return queued
end

-- Adds an address to a task, with a delivery at once if it has ended. The same address gets one message, however many requests
-- name it. Returns the number of queued deliveries; nil if the task has the most addresses already.
local function subscribe(task, text, most, room)
  local name, hook = NAME.task .. ':' .. task, cjson.decode(text)
  local hooks = cjson.decode(redis.call('HGET', name, 'hooks') or '[]')
  for _, known in ipairs(hooks) do
    if known.url == hook.url then return 0 end
  end
  if #hooks >= integer('most', most, 1) then return nil end
  hooks[#hooks + 1] = hook
  redis.call('HSET', name, 'hooks', cjson.encode(hooks))
  return tell(task, integer('room', room, 1), clock(''))
end
