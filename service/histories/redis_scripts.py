"""Scripts that run in Redis, where each is one step. They follow `events.py`.

Keys of a user are a sorted set of events by time and one of items shown. A member of the first is a number of eight hex
digits, which is unique in the set and by which events of the same time are in the order of arrival, and then item, kind
and event id, divided by zero bytes, which none of them contains.
"""

from __future__ import annotations

ADD = r"""
-- KEYS: popularity, then the events of each user.
-- ARGV: now, cutoff, most events, half-life, most popular items; then for each user the number of its events,
-- and of each time, item, kind and id. Times are milliseconds. Returns for each event its outcome, and if it was
-- stored, its member.
local now, cutoff, most, half = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local most_popular, at, found = tonumber(ARGV[5]), 6, {}
local popular = KEYS[1]
local counted = false

local function id_of(member)
  return string.match(member, '[^%z]*$')
end

local function is_known(key, ids, time, item, id)
  if id ~= '' then return ids[id] end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, time, time)) do
    if string.match(member, '^[^%z]*', 9) == item then return true end
  end
  return false
end

local function count(item, time)
  local weight = tonumber(time) / half
  local known = tonumber(redis.call('ZSCORE', popular, item) or nil)
  if known then
    local high, low = math.max(known, weight), math.min(known, weight)
    weight = high + math.log(1 + 2 ^ (low - high)) / math.log(2)
  end
  redis.call('ZADD', popular, string.format('%.17g', weight), item)
  counted = true
end

for user = 2, #KEYS do
  local key, ids, number = KEYS[user], {}, 0
  local last = at + 4 * tonumber(ARGV[at])
  at = at + 1
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. cutoff, '+inf')) do
    local id = id_of(member)
    if id ~= '' then ids[id] = true end
    number = math.max(number, tonumber(string.sub(member, 1, 8), 16))
  end
  while at <= last do
    local time, item, kind, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    at = at + 4
    local outcome, kept = 'stored', ''
    if tonumber(time) <= tonumber(cutoff) then
      outcome = 'too_old'
    elseif is_known(key, ids, time, item, id) then
      outcome = 'duplicate'
    else
      number = number + 1
      local member = string.format('%08x', number) .. item .. '\0' .. kind .. '\0' .. id
      redis.call('ZADD', key, time, member)
      redis.call('ZREMRANGEBYSCORE', key, '-inf', cutoff)
      if id ~= '' then ids[id] = true end
      if redis.call('ZCARD', key) > most then
        local oldest = redis.call('ZRANGE', key, 0, 0)[1]
        redis.call('ZREM', key, oldest)
        ids[id_of(oldest)] = nil
        if oldest == member then outcome = 'too_old' end
      end
      if outcome == 'stored' then
        kept = member
        count(item, time)
      end
    end
    found[#found + 1] = outcome
    found[#found + 1] = kept
  end
  local newest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  if newest then redis.call('PEXPIRE', key, math.max(1, tonumber(newest) - tonumber(cutoff))) end
end
if counted then
  if redis.call('ZCARD', popular) > 2 * most_popular then
    redis.call('ZREMRANGEBYRANK', popular, 0, -most_popular - 1)
  end
  redis.call('PEXPIRE', popular, now - tonumber(cutoff))
end
return found
"""

SHOW = r"""
-- KEYS: items shown to a user. ARGV: now, cutoff, most items; then the items.
for place = 4, #ARGV do redis.call('ZADD', KEYS[1], ARGV[1], ARGV[place]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[3]) - 1)
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[1]) - tonumber(ARGV[2]))
"""

ERASE = r"""
-- KEYS: events of a user, items shown. ARGV: cutoff. Returns the number of events.
local number = redis.call('ZCOUNT', KEYS[1], '(' .. ARGV[1], '+inf')
redis.call('DEL', KEYS[1], KEYS[2])
return number
"""
