-- Tells of a channel: epoch and offset, messages kept, and the instances whose leases run.
-- KEYS: meta, stream, presence
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
local all, here = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #all, 2 do
  local sessions, till = string.match(all[i + 1], '^(%d+) (%d+)$')
  if till and tonumber(till) > now then
    here[#here + 1] = all[i]
    here[#here + 1] = sessions
  else
    redis.call('HDEL', KEYS[3], all[i])
  end
end
return {meta[1] or '0', meta[2] or '0', redis.call('XLEN', KEYS[2]), here}
