-- ARGV: 2 id, 3 title, 4 spec, 5 nonce, 6.. first task (queue, kind, payload, max)
local id, nonce = ARGV[2], ARGV[5]
local job = key('job', id)
local existing = redis.call('HGET', job, 'nonce')
if existing == nonce then
    return {0} -- done already, the answer was lost
end
if existing then
    return refuse(ALREADY_EXISTS, 'job ' .. id .. ' exists already')
end
hear()
redis.call('HSET', job, 'nonce', nonce, 'state', 'running', 'title', ARGV[3], 'spec', ARGV[4],
    'created', digits(NOW), 'updated', digits(NOW), 'tasks', 1, 'away',
    digits(away()))
redis.call('ZADD', PREFIX .. ':jobs', digits(NOW_US), id)
redis.call('SADD', PREFIX .. ':running', id)
make_ready(create_task(id, 1, {queue = ARGV[6], kind = ARGV[7], payload = ARGV[8], max = ARGV[9]},
    'new'))
return {0}
