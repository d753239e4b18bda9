-- Returns the facts by which another process can finish some calls. Writes nothing.
-- now, calls with commas between them -> calls, of each known one: its id, task, note, ticket, path, links, receipt, error
-- ("" if there is none)

check_clock(ARGV[1])
local calls = {}
for word in string.gmatch((ARGV[2] or '') .. ',', '([^,]*),') do calls[#calls + 1] = id('call', word) end

local answer = {'calls'}
for _, call in ipairs(calls) do
  local row = redis.call('HMGET', NAME.call .. ':' .. call, 'task', 'note', 'ticket', 'path', 'links', 'receipt', 'error')
  if row[1] then
    answer[#answer + 1] = call
    for _, value in ipairs(row) do answer[#answer + 1] = value or '' end
  end
end
return answer
