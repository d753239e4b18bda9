-- Begins a new epoch: an operator has checked the store and accepts it.
-- now, an id for the epoch -> accepted, epoch

local now = clock(ARGV[1])
local fresh = id('epoch', ARGV[2])
local epoch = redis.call('GET', NAME.epoch)
-- A repetition: the first reply was lost.
if not epoch or string.match(epoch, '^%S*') ~= fresh then
  epoch = fresh .. ' accepted ' .. digits(now)
  redis.call('SET', NAME.epoch, epoch)
  redis.call('DEL', NAME.lost)
end
return {'accepted', epoch}
