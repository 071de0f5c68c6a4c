-- Publishes one message: id, condition, position, history and live copy as one step.
-- KEYS: meta, stream, [id]   ARGV: envelope, epoch if a new one is needed, condition ("", "0" or "epoch offset"),
-- window ms, messages max, bytes max, age ms max, ttl ms, live channel, PUBLISH or SPUBLISH, life
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end

if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  if known then return {'duplicate', known} end
end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'bytes', 'life', 'check', 'past')
local epoch, offset, bytes = meta[1], tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
local life = ARGV[11]
if life == 'node' then life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
local past = meta[6] or ''
if not epoch then redis.call('DEL', KEYS[2]) end
if not epoch or meta[4] ~= life then
  -- As in read.lua.
  local ends = {}
  if epoch then ends[1] = epoch .. ' ' .. text(offset) end
  for one in string.gmatch(past, '%d+ %d+') do
    if #ends < 8 then ends[#ends + 1] = one end
  end
  epoch, past = ARGV[2], table.concat(ends, ',')
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', text(offset), 'life', life, 'past', past)
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
end

local here = epoch .. ' ' .. text(offset)
if ARGV[3] == '0' and offset > 0 then return {'moved', here} end
if ARGV[3] ~= '' and ARGV[3] ~= '0' and ARGV[3] ~= here then
  -- The end of an earlier epoch is the same place, while nothing follows it.
  local ends = string.match(ARGV[3], ' (%d+)$') == text(offset) and ',' .. past .. ',' or ''
  if not string.find(ends, ',' .. ARGV[3] .. ',', 1, true) then return {'moved', here} end
end

offset = offset + 1
redis.call('XADD', KEYS[2], text(offset) .. '-' .. text(now), 'm', ARGV[1])
local length = redis.call('XLEN', KEYS[2])
bytes = (length == 1 and 0 or bytes) + #ARGV[1]
local check = tonumber(meta[5] or '0')
local messages_max, bytes_max, oldest = tonumber(ARGV[5]), tonumber(ARGV[6]), now - tonumber(ARGV[7])
if length > messages_max or bytes > bytes_max or now >= check then
  -- A few at a time: a policy that became narrower must not hold the server up.
  for _ = 1, 100 do
    if length <= 1 then break end
    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    local at = tonumber(string.match(first[1], '-(%d+)$'))
    if length <= messages_max and bytes <= bytes_max and at >= oldest then
      check = now + 1000
      break
    end
    redis.call('XDEL', KEYS[2], first[1])
    length, bytes = length - 1, bytes - #first[2][2]
  end
end
redis.call('HSET', KEYS[1], 'offset', text(offset), 'bytes', text(bytes), 'check', text(check))
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
local position = epoch .. ' ' .. text(offset)
if KEYS[3] then redis.call('SET', KEYS[3], position, 'PX', ARGV[4]) end
redis.call(ARGV[10], ARGV[9], position .. ' ' .. text(now) .. ' ' .. ARGV[1])
return {'published', position}
