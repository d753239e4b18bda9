-- Ends one call and counts its outcome. A repetition changes nothing.
-- now, label, permit, outcome (good, unknown, refusal, none), cool-down µs, why (limit, credential or ""),
-- field of the latency or "", ms, presumed µ$, and the rules: calls, window µs, unknown, refusals, open µs, most µs, good,
-- digest of the key or ""
-- -> known | done, the change of the breaker (opened, closed or ""), the reason of a new cool-down or ""

local now = clock(ARGV[1])
local label, permit = label_of(ARGV[2]), permit_of(ARGV[3])
local LETTERS = {good = 'g', unknown = 'u', refusal = 'r', none = 'n'}
local letter = LETTERS[ARGV[4]] or invalid('outcome')
local cool = integer('cool', ARGV[5], 0)
local why = ARGV[6]
if why ~= '' and why ~= 'limit' and why ~= 'credential' then invalid('why') end
local field, taken, presumed = ARGV[7], integer('ms', ARGV[8], 0), integer('presumed', ARGV[9], 0)
local rules = {}
for index, name in ipairs({'calls', 'window', 'unknown', 'refusals', 'open', 'open_most', 'good'}) do
  rules[name] = integer(name, ARGV[9 + index], 1)
end
local used = digest_of(ARGV[17])
local KEPT_SAMPLES = 40

local name = key(NAME.target, label)
local target = read(label)

-- A list as "word,word": adds a word, and removes the first ones over `most`.
local function append(list, word, most)
  if not list or list == '' then return word end
  local commas, at = {}, string.find(list, ',', 1, true)
  while at do
    commas[#commas + 1] = at
    at = string.find(list, ',', at + 1, true)
  end
  local over = #commas + 2 - most
  if over > #commas then return word end
  return string.sub(list, over > 0 and commas[over] + 1 or 1) .. ',' .. word
end

-- The last calls as "<letter>:<permit>:<when>", by which a repetition is found too.
local former = target.recent or ''
if string.find(former, permit, 1, true) then return {'known'} end
local recent = append(former, letter .. ':' .. permit .. ':' .. digits(now), rules.calls)
local counts = {u = 0, r = 0}
local from = math.max(number(target, 'since'), now - rules.window)
local line = ',' .. recent
if string.find(line, ',u:', 1, true) or string.find(line, ',r:', 1, true) then
  for kind, at in string.gmatch(line, ',([ur]):[^:]+:(%d+)') do
    -- Calls of before the breaker's last change do not count again.
    if tonumber(at) > from then counts[kind] = counts[kind] + 1 end
  end
end

redis.call('ZREM', key(NAME.permits, label), permit)
redis.call('HSET', name, 'recent', recent)

local change = ''
local function open()
  local opens = math.min(number(target, 'opens') + 1, 30)
  local stop = now + math.min(rules.open * 2 ^ (opens - 1), rules.open_most)
  redis.call('HSET', name, 'until', digits(stop), 'opens', opens, 'since', digits(now))
  redis.call('HDEL', name, 'goods', 'probe')
  change = 'opened'
end

local state = breaker_of(target, now)
if state == 'closed' then
  if counts.u >= rules.unknown or counts.r >= rules.refusals then open() end
elseif state == 'half' and target.probe == permit then
  redis.call('HDEL', name, 'probe')
  if letter == 'u' or letter == 'r' then
    open()
  elseif letter == 'g' and redis.call('HINCRBY', name, 'goods', 1) >= rules.good then
    redis.call('HDEL', name, 'until', 'opens', 'goods')
    redis.call('HSET', name, 'since', digits(now))
    change = 'closed'
  end
end

local cooled, last = '', cooled_of(target, used)
if cool > 0 then
  local is_cool = last > now
  -- A rate limit must not hide a rejected credential.
  if not is_cool or why == 'credential' then cooled = (is_cool and target.cooled_why == why) and '' or why end
  local reason = (is_cool and target.cooled_why == 'credential') and 'credential' or why
  redis.call('HSET', name, 'cooled', digits(math.max(last, now + cool)), 'cooled_why', reason)
  if why == 'credential' then redis.call('HSET', name, 'cooled_key', used) end
elseif letter == 'g' and last < number(target, 'cooled') then
  -- Another key was rejected, and this one works.
  redis.call('HDEL', name, 'cooled', 'cooled_why', 'cooled_key')
end

if field ~= '' then
  local times = key(NAME.latency, label)
  local samples = redis.call('HGET', times, field)
  redis.call('HSET', times, field, append(samples, digits(taken), KEPT_SAMPLES))
  if not samples then keep(NAME.latency, label) end
end

if presumed > 0 then
  local sums = key(NAME.presumed, label)
  redis.call('HINCRBY', sums, digits(math.floor(now / STRETCH)), digits(presumed))
  for _, stretch in ipairs(redis.call('HKEYS', sums)) do
    if (tonumber(stretch) + 1) * STRETCH + HOUR <= now then redis.call('HDEL', sums, stretch) end
  end
  redis.call('PEXPIRE', sums, 2 * 3600 * 1000)
end
-- The first call of a day prolongs what the others of the day use.
if math.floor(tonumber(string.match(string.sub(former, -17), '(%d+)$') or '0') / DAY) < math.floor(now / DAY) then
  keep(NAME.target, label)
  keep(NAME.latency, label)
end
return {'done', change, cooled}
