-- Begins a new epoch: an operator has looked at the store and takes it as it is.
-- now, an id for the epoch -> accepted, epoch

local now = clock(ARGV[1])
local fresh = id('epoch', ARGV[2])
local epoch = redis.call('GET', NAME.epoch)
-- Asked before: the reply was lost.
if not epoch or string.match(epoch, '^%S*') ~= fresh then
  epoch = fresh .. ' accepted ' .. digits(now)
  redis.call('SET', NAME.epoch, epoch)
end
return {'accepted', epoch}
