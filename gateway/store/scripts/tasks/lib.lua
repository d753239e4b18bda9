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

-- Stores images, as pairs of slot and text from ARGV[first] on, and notifies the waiters; `told` is the most changes in the
-- stream. The first image of a slot stands: a caller may have it already.
local function put(task, ttl, told, first)
  for index = first, #ARGV, 2 do
    redis.call('HSETNX', record_of(task), 'image:' .. ARGV[index], ARGV[index + 1])
  end
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
