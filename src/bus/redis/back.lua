-- Lets a session that its client took (then it is empty) wait again.
-- KEYS: session   ARGV: text, ms
if redis.call('GET', KEYS[1]) ~= '' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
