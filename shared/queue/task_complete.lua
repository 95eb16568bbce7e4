-- ARGV: 2 id, 3 epoch, 4 "complete" or "finish" (the job, too), 5 result, 6 "1" with a
-- continuation, which is then the last of the tasks 7.. (queue, kind, payload, max)
local verb = ARGV[4]
local task, answer = held_task(ARGV[2], ARGV[3], verb)
if not task then
    return answer
end

local specs = {}
for i = 7, #ARGV, 4 do
    specs[#specs + 1] = {queue = ARGV[i], kind = ARGV[i + 1], payload = ARGV[i + 2],
        max = ARGV[i + 3]}
end
local first = redis.call('HINCRBY', key('job', task.job), 'tasks', #specs) - #specs + 1
local continuation = nil
if ARGV[6] == '1' then
    local members = #specs - 1
    continuation = create_task(task.job, first + members, table.remove(specs), 'waiting',
        'first', digits(first), 'members', digits(members))
    if members == 0 then
        make_ready(continuation)
    else
        redis.call('SET', key('group', continuation.id), digits(members))
    end
end
for i, spec in ipairs(specs) do
    local n = first + i - 1
    if continuation then
        make_ready(create_task(task.job, n, spec, 'new', 'group', continuation.id))
    else
        make_ready(create_task(task.job, n, spec, 'new'))
    end
end

end_task(task, 'succeeded', 'result', ARGV[5], 'closed', verb .. ':' .. ARGV[3])
if verb == 'finish' then
    end_job(task.job, 'succeeded', 'result', ARGV[5])
else
    check_job_goes_on(task.job)
end
return {0}
