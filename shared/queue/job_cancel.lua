-- ARGV: 2 id
local state = job_state(ARGV[2])
if not state then
    return refuse(NOT_FOUND, 'there is no job ' .. ARGV[2])
end
if state == 'cancelled' then
    return {0}
end
if state ~= 'running' then
    return refuse(FAILED_PRECONDITION, 'job ' .. ARGV[2] .. ' has ended already: ' .. state)
end
end_job(ARGV[2], 'cancelled')
return {0}
