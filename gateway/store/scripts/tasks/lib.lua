-- Functions shared by the scripts of the task records. The loader puts NAME before this text.

local function invalid(what)
  error('INVALID ' .. what, 0)
end

local function task_of(value)
  if not value or not string.match(value, '^task_[0-9a-z]+$') then invalid('task') end
  return value
end

local function count_of(what, value)
  if not value or not string.match(value, '^%d+$') then invalid(what) end
  return value
end

local function text_of(what, value)
  if not value or #value == 0 then invalid(what) end
  return value
end

local function record_of(task)
  return NAME.task .. ':' .. task
end

local function read(task)
  local facts, flat = {}, redis.call('HGETALL', record_of(task))
  for index = 1, #flat, 2 do facts[flat[index]] = flat[index + 1] end
  return facts
end

-- Stores fields, given as pairs, and images, as pairs of slot and text from ARGV[first] on, and notifies the waiters; `told` is
-- the most changes in the stream. What `facts` has of them stands: a caller may have the first image of a slot already.
local function put(task, facts, fields, ttl, told, first)
  for index = first, #ARGV, 2 do
    fields[#fields + 1], fields[#fields + 2] = 'image:' .. ARGV[index], ARGV[index + 1]
  end
  local missing = {}
  for index = 1, #fields, 2 do
    local field, value = fields[index], fields[index + 1]
    if not facts[field] then
      facts[field] = value
      missing[#missing + 1], missing[#missing + 2] = field, value
    end
  end
  if #missing > 0 then redis.call('HSET', record_of(task), unpack(missing)) end
  redis.call('EXPIRE', record_of(task), ttl)
  redis.call('XADD', NAME.changed, 'MAXLEN', '~', told, '*', 'task', task)
end

local function check_images(first)
  if (#ARGV - first) % 2 == 0 then invalid('images') end
  for index = first, #ARGV, 2 do
    count_of('slot', ARGV[index])
    text_of('image', ARGV[index + 1])
  end
end
