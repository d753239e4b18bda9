-- Stores the end of a task with all its images. The first end stands; a guess stands until an end is known. The end of a task
-- whose worker died before it stored the record is stored all the same.
-- task, ttl s, the most changes in the stream, record, kind (end, guess), end, the most messages that wait for one key, then
-- pairs of a slot and its image -> done, number of queued messages, and, if another end or other images stand, the fields
-- and values of the whole record

local task, ttl = task_of(ARGV[1]), count_of('ttl', ARGV[2])
local told = count_of('told', ARGV[3])
local promise, known, ended = text_of('promise', ARGV[4]), ARGV[5], text_of('end', ARGV[6])
if known ~= 'end' and known ~= 'guess' then invalid('known') end
local room = integer('room', ARGV[7], 1)
check_images(8)

local stands = read(task)
put(task, stands, {'promise', promise, known, ended}, ttl, told, 8)
local answer = {'done', stands.hooks and digits(tell(task, room, clock(''))) or '0'}

local mine, images, is_mine = {}, 0, true
for index = 8, #ARGV, 2 do mine['image:' .. ARGV[index]] = ARGV[index + 1] end
for field, value in pairs(stands) do
  if string.sub(field, 1, 6) == 'image:' then
    is_mine = is_mine and mine[field] == value
    images = images + 1
  end
end
if is_mine and images == (#ARGV - 7) / 2 and (stands['end'] or stands.guess) == ended then return answer end
for field, value in pairs(stands) do
  answer[#answer + 1] = field
  answer[#answer + 1] = value
end
return answer
