"""Lua scripts over the journal's keys in Redis. Each is one atomic step; all begin with PREAMBLE.

The first five keys are stream, links, history, snapshot and revisions. `links` is a stream with the entry ids of
`stream`: each link is the SHA-1 of the link before, the entry's id and its content, so that an id and its link stand
for everything up to that entry. A replica's position (history, id, link) is on the stored history if its link is found
under its id.
"""

from __future__ import annotations

MAX_LINKS = 100_000
"""Links that are kept. A replica that missed more entries than that cannot tell whether it was on the same history."""
MAX_DIGITS = 19
"""Of each part of an entry's id: Redis accepts all such numbers."""

PREAMBLE = """
local stream, links, history, snapshot, revisions = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function split(id) return string.match(id, '^(%d+)%-(%d+)$') end

local function is_after(one, other)
  local a, b = split(one)
  local c, d = split(other)
  if #a ~= #c then return #a > #c end
  if a ~= c then return a > c end
  if #b ~= #d then return #b > #d end
  return b > d
end

local function first(key) return redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1] end

local function head()
  local newest = redis.call('XREVRANGE', links, '+', '-', 'COUNT', 1)[1]
  if newest then return newest[1], newest[2][2] end
  return '0-0', ''
end

local function snapshot_id()
  local id = redis.call('HGET', snapshot, 'id')
  local a, b = split(id or '')
  if a and #a <= MAX_DIGITS and #b <= MAX_DIGITS then return id end
end

local function stored_history() return redis.call('HGET', history, 'id') or '' end

local function has_data() return redis.call('EXISTS', stream, links, snapshot, revisions) > 0 end

-- The highest id that the stream ever had.
local function top()
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then return info[i + 1] end end
end

-- Whether an entry has a revision that no append has given.
local function is_stray(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'entry' then
      local is_json, entry = pcall(cjson.decode, fields[i + 1])
      if not is_json or type(entry) ~= 'table' or type(entry.domain) ~= 'string' then return false end
      local given = tonumber(redis.call('HGET', revisions, entry.domain) or '')
      return type(entry.revision) == 'number' and given ~= nil and entry.revision > given
    end
  end
  return false
end

-- Links the entries that have no link yet: a new one, those of the release before, those of other programs.
local function link_entries(new)
  local id, link = head()
  if id == '0-0' then
    link = redis.sha1hex(stored_history())
    local base, oldest = snapshot_id(), first(stream)
    if base and base ~= '0-0' and (not oldest or is_after(oldest[1], base)) then
      redis.call('XADD', links, base, 'link', link)
    end
  end
  local num_linked = 0
  repeat
    local entries = redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1000)
    for _, entry in ipairs(entries) do
      id = entry[1]
      link = redis.sha1hex(link .. id .. table.concat(entry[2], '\\0'))
      redis.call('XADD', links, id, 'link', link, 'is_stray', id ~= new and is_stray(entry[2]) and 1 or 0)
    end
    num_linked = num_linked + #entries
  until #entries < 1000
  if num_linked > 0 then redis.call('XTRIM', links, 'MAXLEN', '~', MAX_LINKS) end
end

-- How a replica's position stands to what is stored. A replica without a history has read nothing yet.
local function standing(mine, id, link, new)
  if stored_history() == '' then
    if not has_data() then return 'empty' end
    if mine ~= '' then return 'unnamed' end
    redis.call('HSET', history, 'id', new)
  end
  link_entries()
  if mine == '' then return 'same' end
  if stored_history() ~= mine then return 'other' end
  if id ~= '0-0' then
    local found = redis.call('XRANGE', links, id, id)[1]
    if not found or found[2][2] ~= link then return 'apart' end
  end
  if is_after(head(), top()) then return 'cut' end
  return 'same'
end

local function is_at(expected, expected_id, expected_link)
  if stored_history() ~= expected then return false end
  if expected ~= '' then link_entries() end
  local id, link = head()
  return id == expected_id and link == expected_link
end

local function answer(status, result)
  local id, link = head()
  return {status, result, stored_history(), redis.call('HGET', history, 'replaces') or '', id, link}
end

local function content(result, id, limit, unread)
  local reply = answer('same', result)
  local base, oldest, taken = snapshot_id(), first(stream), false
  if base and is_after(base, id) and (not oldest or is_after(oldest[1], id)) then
    taken = {base, redis.call('HGET', snapshot, 'states') or ''}
    id = base
  elseif not base and id == '0-0' and redis.call('EXISTS', snapshot) == 1 then
    taken = {'', ''}
  end
  local entries = redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', limit)
  local last = #entries > 0 and entries[#entries][1] or id
  local present = {}
  for _, each in ipairs(unread) do
    if #redis.call('XRANGE', stream, each, each) > 0 then present[#present + 1] = each end
  end
  for _, each in ipairs({taken, entries, redis.call('XRANGE', links, id, last), redis.call('HGETALL', revisions),
                         present, #entries < limit and 1 or 0}) do
    reply[#reply + 1] = each
  end
  return reply
end

local function store(id, states, format, num_revisions, at)
  redis.call('HSET', snapshot, 'id', id, 'states', states, 'format', format)
  redis.call('DEL', revisions)
  for i = at, at + 2 * num_revisions - 1, 2 do redis.call('HSET', revisions, ARGV[i], ARGV[i + 1]) end
end

-- A script is not undone where it fails, so it has to know before its first write that it may do all of them.
local function require_rights(needed)
  if not redis.acl_check_cmd then return end  -- Redis before 7
  local examples = {XADD = {stream, '*', 'entry', ''}, HSET = {revisions, 'field', ''}, XTRIM = {links, 'MAXLEN', '1'},
                    XDEL = {stream, '0-1'}, DEL = {revisions}, RENAME = {stream, KEYS[6] or stream}}
  for _, command in ipairs(needed) do
    if not redis.acl_check_cmd(command, unpack(examples[command])) then
      error({err = 'NOPERM this user may not run ' .. command .. ' on the keys of the journal'})
    end
  end
end

-- Whether an append with this token was made: its answer may have been lost, and the client asks again.
local function is_made(token, id)
  for _, entry in ipairs(redis.call('XRANGE', stream, '(' .. id, '+')) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'token' and entry[2][i + 1] == token then return true end
    end
  end
  return false
end

-- Whether the snapshot is of a newer release. Its format is not signed: who has read the signed states, and found that
-- they are of no newer release, gives their SHA-1.
local function is_newer(format, read)
  if read ~= '' and redis.sha1hex(redis.call('HGET', snapshot, 'states') or '') == read then return false end
  return (tonumber(redis.call('HGET', snapshot, 'format') or '') or 0) > tonumber(format)
end
""".replace("MAX_LINKS", str(MAX_LINKS)).replace("MAX_DIGITS", str(MAX_DIGITS))

# mine, id, link, new history, limit, unread ids …
READ = (
    PREAMBLE
    + """
local status = standing(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if status ~= 'same' then return answer(status, '') end
return content('', ARGV[2], tonumber(ARGV[5]), {unpack(ARGV, 6)})
"""
)

# mine, id, link, new history, limit, domain, revision before as the replica knows it, revision, entry, token,
# is signed, unread ids …
APPEND = (
    PREAMBLE
    + """
require_rights({'XADD', 'HSET', 'XTRIM'})
local status = standing(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if status == 'empty' and ARGV[1] == '' then
  redis.call('HSET', history, 'id', ARGV[4])
  status = 'same'
end
if status ~= 'same' then return answer(status, '') end
local stored = tonumber(redis.call('HGET', revisions, ARGV[6]) or '') or 0
local known, before = tonumber(ARGV[7]), tonumber(ARGV[8]) - 1
local result = 'conflict'
local is_next
if ARGV[11] == '1' then
  -- A signed entry names its history and follows what the replica has read; the revisions are not signed.
  is_next = head() == ARGV[2] and stored_history() == ARGV[4]
  if not is_next then result = 'behind' end
else
  -- A lower revision than that of a replica that has read everything was lost from the hash.
  is_next = stored == before or (stored < before and before == known and head() == ARGV[2])
end
if is_next then
  local new = redis.call('XADD', stream, '*', 'entry', ARGV[9], 'token', ARGV[10])
  redis.call('HSET', revisions, ARGV[6], ARGV[8])
  link_entries(new)
  result = 'appended'
elseif is_made(ARGV[10], ARGV[2]) then
  result = 'appended'
end
return content(result, ARGV[2], tonumber(ARGV[5]), {unpack(ARGV, 12)})
"""
)

# mine, id, link, states, format, states that were read. Refuses to replace a later snapshot: the stream is trimmed up
# to that one.
SNAPSHOT = (
    PREAMBLE
    + """
require_rights({'XADD', 'HSET', 'XTRIM'})
if standing(ARGV[1], ARGV[2], ARGV[3], '') ~= 'same' or is_newer(ARGV[5], ARGV[6]) then return 0 end
local old = snapshot_id()
if old and not is_after(ARGV[2], old) then return 0 end
redis.call('HSET', snapshot, 'id', ARGV[2], 'states', ARGV[4], 'format', ARGV[5])
redis.call('XTRIM', stream, 'MINID', ARGV[2])
return 1
"""
)

# expected history, id, link; states that were read; mine, replaces, id, states, format, number of revisions;
# revisions …, links …
RESTORE = (
    PREAMBLE
    + """
require_rights({'XADD', 'HSET', 'XTRIM', 'XDEL', 'DEL'})
if not is_at(ARGV[1], ARGV[2], ARGV[3]) or (ARGV[1] == '' and has_data()) then return 0 end
if is_newer(ARGV[9], ARGV[4]) then return -1 end
redis.call('HSET', history, 'id', ARGV[5], 'replaces', ARGV[6])
local num_revisions = tonumber(ARGV[10])
for i = 11 + 2 * num_revisions, #ARGV, 2 do redis.call('XADD', links, ARGV[i], 'link', ARGV[i + 1]) end
local is_new = is_after(ARGV[7], top())
if is_new then redis.call('XADD', stream, ARGV[7], 'entry', '') end  -- later ids must be higher
redis.call('XTRIM', stream, 'MINID', ARGV[7])
if is_new then redis.call('XDEL', stream, ARGV[7]) end
store(ARGV[7], ARGV[8], ARGV[9], num_revisions, 11)
return 1
"""
)

# is checked, expected history, id, link; new history, replaces, states, format, number of revisions; revisions …
# Five more keys take what was stored before.
BEGIN = (
    PREAMBLE
    + """
require_rights({'XADD', 'HSET', 'XDEL', 'DEL', 'RENAME'})
if redis.call('TYPE', history).ok == 'hash' and stored_history() == ARGV[5] then return {head()} end  -- asked again
if ARGV[1] == '1' and not is_at(ARGV[2], ARGV[3], ARGV[4]) then return false end
for i = 1, 5 do
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('RENAME', KEYS[i], KEYS[i + 5]) end
end
local id = redis.call('XADD', stream, '*', 'entry', '')
redis.call('XDEL', stream, id)
local link = redis.sha1hex(ARGV[5])
redis.call('HSET', history, 'id', ARGV[5], 'replaces', ARGV[6])
redis.call('XADD', links, id, 'link', link)
store(id, ARGV[7], ARGV[8], tonumber(ARGV[9]), 10)
return {id, link}
"""
)

# expected history, id, link; new history, replaces
RENAME = (
    PREAMBLE
    + """
if stored_history() == ARGV[4] then return 1 end  -- asked again
if not is_at(ARGV[1], ARGV[2], ARGV[3]) then return 0 end
redis.call('HSET', history, 'id', ARGV[4], 'replaces', ARGV[5])
return 1
"""
)
