-- ARGV: 2 job, 3 json, 4 nonce of this call, 5 ms for which it may be repeated
local state = job_state(ARGV[2])
if not state then
    return refuse(NOT_FOUND, 'there is no job ' .. ARGV[2])
end
-- before the state: the job may have ended between the call and its repetition
if not redis.call('SET', key('once', ARGV[4]), 1, 'NX', 'PX', ARGV[5]) then
    return {0}
end
if state ~= 'running' then
    return refuse(FAILED_PRECONDITION, 'job ' .. ARGV[2] .. ' has ended: ' .. state)
end
add_event(ARGV[2], ARGV[3])
return {0}
