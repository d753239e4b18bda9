-- Returns the waiting and the given-up deliveries, of one key or of all, newest first.
-- now, key or "", the most of each -> each as JSON, without its body

local key, most = ARGV[2], integer('most', ARGV[3], 1)
local found = {}

local function show(id)
  local facts = redis.call('HMGET', delivery(id), 'task', 'key', 'url', 'created', 'tries', 'state', 'why')
  if not facts[1] or (key ~= '' and facts[2] ~= key) then return 0 end
  local due = facts[6] == 'waiting' and redis.call('ZSCORE', waiting_of(facts[2]), id) or nil
  found[#found + 1] = cjson.encode({
    id = id, task = facts[1], key = facts[2], url = facts[3], created = facts[4], tries = facts[5], state = facts[6],
    why = facts[7], due = due and digits(tonumber(due)) or nil,
  })
  return 1
end

local shown = 0
for _, one in ipairs(key ~= '' and {key} or redis.call('ZRANGE', NAME.webhooks, 0, -1)) do
  for _, id in ipairs(redis.call('ZREVRANGE', waiting_of(one), 0, most - 1)) do
    if shown >= most then break end
    shown = shown + show(id)
  end
end
shown = 0
for _, id in ipairs(redis.call('ZREVRANGE', NAME.webhooks_lost, 0, -1)) do
  if shown >= most then break end
  shown = shown + show(id)
end
return found
