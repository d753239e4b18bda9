-- Functions shared by the scripts of the targets. The loader puts NAME before this text. Times are µs, amounts whole µ$.

local LARGEST = 9007199254740991
local HOUR = 3600 * 1000000
local STRETCH = 300 * 1000000 -- presumed money is summed by five minutes
local DAY = 24 * HOUR
local KEPT_MS = 30 * 24 * 3600 * 1000

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

-- The names that the catalogue allows: upstream/credential.
local function label_of(value)
  if not value or #value > 201 or not string.match(value, '^%w[%w._/-]*$') then invalid('label') end
  return value
end

local function permit_of(value)
  if not value or not string.match(value, '^permit_[0-9a-z]+$') then invalid('permit') end
  return value
end

local function clock(value)
  if value ~= '' then return integer('now', value, 1) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function key(name, label)
  return name .. ':' .. label
end

local function read(label)
  local flat, found = redis.call('HGETALL', key(NAME.target, label)), {}
  for index = 1, #flat, 2 do found[flat[index]] = flat[index + 1] end
  return found
end

local function number(target, field)
  return tonumber(target[field] or '0')
end

-- The digest of a credential's key, or "".
local function digest_of(value)
  if not value or not string.match(value, '^%x*$') or #value > 64 then invalid('key') end
  return value
end

-- The end of the cool-down that counts for a key: one after a rejected key counts for that key alone.
local function cooled_of(target, used)
  local rejected = target.cooled_why == 'credential' and target.cooled_key or ''
  if used ~= '' and rejected ~= '' and rejected ~= used then return 0 end
  return number(target, 'cooled')
end

-- closed, open, or half (half-open): one call at a time may pass.
local function breaker_of(target, now)
  if not target['until'] then return 'closed' end
  return now < number(target, 'until') and 'open' or 'half'
end

-- The presumed µ$ of the last hour, and the µs until it is less.
local function presumed_of(label, now)
  local flat, sum, oldest = redis.call('HGETALL', key(NAME.presumed, label)), 0, nil
  for index = 1, #flat, 2 do
    local stop = (tonumber(flat[index]) + 1) * STRETCH + HOUR
    if stop > now then
      sum = sum + tonumber(flat[index + 1])
      oldest = math.min(oldest or stop, stop)
    end
  end
  return sum, oldest and oldest - now or 0
end

-- The µs until the end of the pause that `value` describes, 0 if it has no end; nil if it has ended or there is none.
local function pause_left(now, value)
  local stop = value and tonumber(string.match(value, ' (%d+)$'))
  if not stop or stop == 0 then return stop end
  return stop > now and stop - now or nil
end

-- What is stored of a target expires after its last change.
local function keep(name, label)
  redis.call('PEXPIRE', key(name, label), KEPT_MS)
end
