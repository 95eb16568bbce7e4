-- ARGV: 2 worker, 3 lease ms, 4 nonce of this call, 5.. queues, most important first
-- Answer with a task: 0, 1, id, job, queue, kind, epoch, delivery, payload, then for each member of
-- its group: state, result or reason.
-- Answer without: 0, 0, ms until something may be due (-1: nothing known), then for each queue the
-- id after which a new entry would wake the caller.
local worker, lease, nonce = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local SWEEP, SKIP = 100, 1000 -- bounds of one call; more is done at the next

-- A lease ran out. Nobody says why: the worker was killed, stopped, cut off or stuck.
local function expire(task)
    local reason = 'worker ' .. task.worker .. ' was not heard of any more'
    if task.deliveries >= task.max then
        die(task, reason .. ' (delivery ' .. digits(task.deliveries) .. ', the last)')
        return
    end
    take_out(task)
    make_ready(task)
    event(task.job, 'retried', 'task', task.id, 'kind', task.kind, 'delivery', task.deliveries,
        'reason', reason)
end

-- Leases that ran out and retries that are due. True: there is more.
local function sweep(queue)
    local timers = key('timers', queue)
    local ids = redis.call('ZRANGEBYSCORE', timers, '-inf', digits(NOW), 'LIMIT', 0, SWEEP)
    for _, id in ipairs(ids) do
        redis.call('ZREM', timers, id)
        local task = load(id)
        if task and task.state == 'delayed' then
            make_ready(task)
        elseif task and task.state == 'leased' then
            expire(task)
        end
    end
    return #ids == SWEEP
end

local function take(task)
    task.deliveries = task.deliveries + 1
    -- Time is in the epoch: even where Redis lost its last second, an old one never comes again.
    task.epoch = math.max(task.epoch + 1, NOW_US)
    move(task, 'leased', 'worker', worker, 'epoch', digits(task.epoch), 'deliveries',
        digits(task.deliveries))
    redis.call('ZADD', key('timers', task.queue), digits(NOW + lease), task.id)
    redis.call('SET', key('claim', worker), nonce .. ' ' .. task.id, 'PX', digits(lease))
    touch_job(task.job)
end

local function answer(task)
    local found = {0, 1, task.id, task.job, task.queue, task.kind, digits(task.epoch),
        digits(task.deliveries), redis.call('HGET', key('task', task.id), 'payload') or ''}
    for i = 0, task.members - 1 do
        local member = key('task', task.job .. '-' .. digits(task.first + i))
        local f = redis.call('HMGET', member, 'state', 'result', 'reason')
        found[#found + 1] = f[1] or 'lost'
        found[#found + 1] = f[2] or f[3] or ''
    end
    return found
end

-- The next entry that still stands for a ready task. True as second value: not all was looked at.
local function next_task(queue)
    local stream = ensure_stream(queue)
    for _ = 1, SKIP do
        local reply = redis.call('XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', 1, 'STREAMS',
            stream, '>')
        if not reply then
            return nil, false
        end
        local entry, fields = reply[1][2][1][1], reply[1][2][1][2]
        local task = load(fields[2])
        if task and task.state == 'ready' and task.entry == entry then
            take(task)
            return task
        end
        acknowledge(queue, entry) -- cancelled meanwhile
    end
    return nil, true
end

hear()

-- The same call again, whose answer was lost: the same task again.
local last = redis.call('GET', key('claim', worker))
if last and string.sub(last, 1, #nonce) == nonce then
    local task = load(string.sub(last, #nonce + 2))
    if task and task.state == 'leased' and task.worker == worker then
        return answer(task)
    end
end

local more = false
for i = 5, #ARGV do
    more = sweep(ARGV[i]) or more
end
for i = 5, #ARGV do
    local task, unfinished = next_task(ARGV[i])
    if task then
        return answer(task)
    end
    more = more or unfinished
end

local due = -1
local none = {0, 0, 0}
for i = 5, #ARGV do
    local first = redis.call('ZRANGE', key('timers', ARGV[i]), 0, 0, 'WITHSCORES')
    if first[2] then
        local wait = math.max(tonumber(first[2]) - NOW, 0)
        due = due < 0 and wait or math.min(due, wait)
    end
    local info = redis.call('XINFO', 'STREAM', key('queue', ARGV[i]))
    for j = 1, #info, 2 do
        if info[j] == 'last-generated-id' then
            none[#none + 1] = info[j + 1]
        end
    end
end
none[3] = digits(more and 0 or due)
return none
