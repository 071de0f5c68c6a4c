-- Reads a channel from a place on, and makes sure that the reader's place is of the same life.
-- KEYS: meta, stream   ARGV: epoch if a new one is needed, known epoch ("" for none), known offset, its ms, from,
-- count, ttl ms, live channel, PUBLISH or SPUBLISH, life
local function text(number) return string.format('%.0f', number) end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'life', 'past')
local epoch, offset, past = meta[1], tonumber(meta[2] or '0'), meta[4] or ''
local life = ARGV[10]
if life == 'node' then life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
if not epoch then redis.call('DEL', KEYS[2]) end
local changed = not epoch or meta[3] ~= life
if changed then
  -- The server was started anew, or another took its place: what was acknowledged last may be gone. What is here now is
  -- what the epoch before was up to here, and that is remembered of the last few. A place beyond is lost.
  local ends = {}
  if epoch then ends[1] = epoch .. ' ' .. text(offset) end
  for one in string.gmatch(past, '%d+ %d+') do
    if #ends < 8 then ends[#ends + 1] = one end
  end
  epoch, past = ARGV[1], table.concat(ends, ',')
end

local known, same = tonumber(ARGV[3]), ARGV[2] == epoch
for before, last in string.gmatch(past, '(%d+) (%d+)') do
  same = same or before == ARGV[2] and known <= tonumber(last)
end
if same then
  -- Acknowledged and forgotten without another start: an older copy came back.
  local lost = known > offset
  if not lost and known > 0 and ARGV[4] ~= '0' then
    local there = redis.call('XRANGE', KEYS[2], text(known), text(known), 'COUNT', 1)[1]
    lost = there and there[1] ~= text(known) .. '-' .. ARGV[4]
  end
  if lost then epoch, past, same, changed = ARGV[1], '', false, true end
end
if changed then
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', text(offset), 'life', life, 'past', past)
  if ARGV[2] ~= '' then redis.call(ARGV[9], ARGV[8], epoch .. ' ' .. text(offset) .. ' 0 ') end
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local from = same and tonumber(ARGV[5]) or 0
return {epoch, text(offset), past, redis.call('XRANGE', KEYS[2], text(from + 1), '+', 'COUNT', ARGV[6])}
