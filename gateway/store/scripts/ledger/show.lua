-- Returns the amounts of some tasks. Writes nothing.
-- now, tasks with commas between them -> holds, a JSON object of each known one

check_clock(ARGV[1])
local tasks = {}
for word in string.gmatch((ARGV[2] or '') .. ',', '([^,]*),') do tasks[#tasks + 1] = id('task', word) end

local answer = {'holds'}
for _, task in ipairs(tasks) do
  local record = read_task(task)
  if record then answer[#answer + 1] = describe(record) end
end
return answer
