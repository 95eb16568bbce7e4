-- ARGV: 2 id, 3 epoch, 4 lease ms
-- Answer: 0, then 1 when the task was cancelled
hear()
local task, answer = held_task(ARGV[2], ARGV[3], 'heartbeat')
if not task then
    if answer[1] == CANCELLED then
        return {0, 1}
    end
    return answer
end
redis.call('ZADD', key('timers', task.queue), digits(NOW + ARGV[4]), task.id)
-- The stream's own view (XPENDING: how long is it since somebody was heard of) stays true as well.
redis.call('XCLAIM', key('queue', task.queue), GROUP, CONSUMER, 0, task.entry, 'JUSTID')
return {0, 0}
