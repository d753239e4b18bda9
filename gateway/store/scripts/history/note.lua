-- Stores one text under its id and changes a day's sums, both or neither; a repetition changes nothing.
-- kind (record, credit), day, id, the stored text or "", the new text, expiry of texts and of sums (ms),
-- then pairs of a sum's name and its step -> done | other, the stored text or ""

local LARGEST = 9007199254740991
local DAY_MS = 86400000
local TEXTS = {record = NAME.records, credit = NAME.credits}

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

local kind, day, id, expected, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not TEXTS[kind] then invalid('kind') end
if not day or not string.match(day, '^%d%d%d%d%-%d%d%-%d%d$') then invalid('day') end
if not id or not string.match(id, '^%l+_[0-9a-z]+$') or #string.match(id, '_(.+)$') ~= 26 then invalid('id') end
if not expected then invalid('expected') end
if not text or #text == 0 then invalid('text') end
local texts_go = integer('texts_go', ARGV[6], 1)
local sums_go = integer('sums_go', ARGV[7], 1)
if #ARGV % 2 == 0 then invalid('steps') end
for index = 8, #ARGV, 2 do
  if #ARGV[index] == 0 then invalid('sum') end
  integer('step', ARGV[index + 1], -LARGEST)
end

local texts, sums = TEXTS[kind] .. ':' .. day, NAME.usage .. ':' .. day
local current = redis.call('HGET', texts, id) or ''
if current == text then return {'done'} end
if current ~= expected then return {'other', current} end

redis.call('HSET', texts, id, text)
for index = 8, #ARGV, 2 do redis.call('HINCRBY', sums, ARGV[index], ARGV[index + 1]) end

-- An old text stays for a day too, so that its repetition is found.
local time = redis.call('TIME')
local soonest = time[1] * 1000 + DAY_MS
redis.call('PEXPIREAT', texts, string.format('%.0f', math.max(texts_go, soonest)))
if #ARGV > 7 then redis.call('PEXPIREAT', sums, string.format('%.0f', math.max(sums_go, soonest))) end
if kind == 'record' then
  local order = NAME.record_order .. ':' .. day
  redis.call('ZADD', order, 0, id)
  redis.call('PEXPIREAT', order, string.format('%.0f', math.max(texts_go, soonest)))
end
return {'done'}
