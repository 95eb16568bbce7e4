-- ARGV: 2 id, 3 epoch
local task, answer = held_task(ARGV[2], ARGV[3], 'release')
if not task then
    return answer
end
take_out(task)
redis.call('HSET', key('task', task.id), 'closed', 'release:' .. ARGV[3], 'deliveries',
    digits(task.deliveries - 1))
make_ready(task)
touch_job(task.job)
return {0}
