-- Reads a channel from a place on, and makes sure that the reader's place is of the same life.
-- KEYS: meta, stream   ARGV: epoch if a new one is needed, known epoch ("" for none), known offset, its ms, from,
-- count, ttl ms, live channel, PUBLISH or SPUBLISH, life
local function text(number) return string.format('%.0f', number) end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'life')
local epoch, offset = meta[1], tonumber(meta[2] or '0')
local life = ARGV[10]
if life == 'node' then life = redis.call('CLUSTER', 'MYID') end
local lost = not epoch or meta[3] ~= life
if not epoch then redis.call('DEL', KEYS[2]) end
if not lost and epoch == ARGV[2] then
  local known = tonumber(ARGV[3])
  if known > offset then
    -- Acknowledged and forgotten: an older copy came back.
    lost = true
  elseif known > 0 and ARGV[4] ~= '0' then
    local there = redis.call('XRANGE', KEYS[2], text(known), text(known), 'COUNT', 1)[1]
    lost = there and there[1] ~= text(known) .. '-' .. ARGV[4]
  end
end
if lost then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', text(offset), 'life', life)
  if ARGV[2] ~= '' then redis.call(ARGV[9], ARGV[8], epoch .. ' ' .. text(offset) .. ' 0 ') end
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local from = epoch == ARGV[2] and tonumber(ARGV[5]) or 0
return {epoch, text(offset), redis.call('XRANGE', KEYS[2], text(from + 1), '+', 'COUNT', ARGV[6])}
