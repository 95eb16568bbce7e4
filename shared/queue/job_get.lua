-- ARGV: 2 "1" with spec and result, 3.. ids; without ids: 3 "", 4 how many of the newest
-- Answer: 0, then for each job its fields: id, state, title, error, created, updated, ended, open,
-- away, spec, result ("" where there is none).
local ids = {}
if ARGV[3] == '' then
    ids = redis.call('ZREVRANGE', PREFIX .. ':jobs', 0, ARGV[4] - 1)
else
    ids[1] = ARGV[3]
end
local answer = {0}
for _, id in ipairs(ids) do
    local f = redis.call('HMGET', key('job', id), 'state', 'title', 'error', 'created', 'updated',
        'ended', 'away', 'away_ended')
    if not f[1] and ARGV[3] ~= '' then
        return refuse(NOT_FOUND, 'there is no job ' .. id)
    end
    local big = {false, false}
    if ARGV[2] == '1' then
        big = redis.call('HMGET', key('job', id), 'spec', 'result')
    end
    answer[#answer + 1] = {id, f[1] or '', f[2] or '', f[3] or '', f[4] or '0', f[5] or '0',
        f[6] or '0', digits(redis.call('SCARD', key('open', id))),
        digits(tonumber(f[8] or away()) - tonumber(f[7] or 0)), big[1] or '', big[2] or ''}
end
return answer
