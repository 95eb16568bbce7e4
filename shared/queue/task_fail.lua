-- ARGV: 2 id, 3 epoch, 4 "1" to retry, 5 reason, 6 a random number in [0,1), 7 first and 8 longest
-- backoff in ms
local task, answer = held_task(ARGV[2], ARGV[3], 'fail')
if not task then
    return answer
end
local reason = ARGV[5]
redis.call('HSET', key('task', task.id), 'closed', 'fail:' .. ARGV[3])
if ARGV[4] ~= '1' then
    die(task, reason)
elseif task.deliveries >= task.max then
    die(task, reason .. ' (delivery ' .. digits(task.deliveries) .. ', the last)')
else
    -- full jitter: anything up to the bound, which doubles with each delivery
    local bound = math.min(tonumber(ARGV[8]), ARGV[7] * 2 ^ (task.deliveries - 1))
    local delay = math.floor(ARGV[6] * bound)
    take_out(task)
    move(task, 'delayed', 'reason', reason)
    redis.call('ZADD', key('timers', task.queue), digits(NOW + delay), task.id)
    touch_job(task.job)
    event(task.job, 'retried', 'task', task.id, 'kind', task.kind, 'delivery', task.deliveries,
        'reason', reason)
end
return {0}
