-- Says how many sessions an instance has on a channel, for the time of a lease.
-- KEYS: presence   ARGV: instance, sessions, lease ms
if ARGV[2] == '0' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', till))
return redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) * 2)
