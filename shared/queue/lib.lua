-- What all scripts share; queue puts it in front of each. Keys are listed in README.md.
--
-- KEYS[1] is the prefix in braces: every key begins with it, so that a cluster keeps all of them in
-- one slot. ARGV[1]: milliseconds for which ended tasks and events of ended jobs are kept.
-- A script answers an array. Its first item is 0, or a status code (gRPC's) followed by a message.
--
-- A task's hash: job, kind, queue, payload, max (deliveries), state, deliveries, epoch; worker and
-- entry (id in the stream) while it is in a queue; closed ("verb:epoch") once a holder gave it up;
-- group (the id of the continuation) for members; first and members (numbers) for continuations;
-- result or reason at the end.

local NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED, CANCELLED = 5, 6, 9, 10, 1
local GROUP, CONSUMER = 'workers', 'worker'

local PREFIX, RETENTION = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local NOW_US = time[1] * 1000000 + time[2]
local NOW = math.floor(NOW_US / 1000)

local function key(kind, id)
    return PREFIX .. ':' .. kind .. ':' .. id
end

-- Numbers go to Redis as whole digits: %.17g would do for these, an exponent would not.
local function digits(n)
    return string.format('%.0f', n)
end

local function refuse(code, message)
    return {code, message}
end

-- ---- the clock ------------------------------------------------------------------------------

-- Workers claim and renew leases all the time; for as long as nobody does, Hone is away (stopped,
-- killed, asleep with its machine), which no job is charged for. Shorter silences are nothing.
local SILENCE = 30000

local function hear()
    local clock = PREFIX .. ':clock'
    local heard = tonumber(redis.call('HGET', clock, 'heard') or NOW)
    if NOW - heard > SILENCE then
        redis.call('HINCRBY', clock, 'away', digits(NOW - heard))
    end
    redis.call('HSET', clock, 'heard', digits(NOW))
end

-- Milliseconds, since ever.
local function away()
    return tonumber(redis.call('HGET', PREFIX .. ':clock', 'away') or 0)
end

-- ---- events --------------------------------------------------------------------------------

local function add_event(job, json)
    redis.call('XADD', key('events', job), 'MAXLEN', '~', 10000, '*', 'json', json)
end

-- {"type":type, name: text or number, ..., "time_ms":now}, in the order given
local function event(job, kind, ...)
    local parts = {'{"type":' .. cjson.encode(kind)}
    local fields = {...}
    for i = 1, #fields, 2 do
        local value = fields[i + 1]
        if type(value) == 'number' then
            value = digits(value)
        else
            value = cjson.encode(value)
        end
        parts[#parts + 1] = '"' .. fields[i] .. '":' .. value
    end
    parts[#parts + 1] = '"time_ms":' .. digits(NOW) .. '}'
    add_event(job, table.concat(parts, ','))
end

-- ---- tasks ---------------------------------------------------------------------------------

local COUNTED = {ready = true, leased = true, delayed = true}

-- Fields of the task's hash as a table with its id, or nil.
local function load(id)
    local f = redis.call('HMGET', key('task', id), 'job', 'queue', 'kind', 'state', 'epoch',
        'entry', 'deliveries', 'max', 'group', 'first', 'members', 'worker', 'closed')
    if not f[1] then
        return nil
    end
    return {
        id = id, job = f[1], queue = f[2], kind = f[3], state = f[4],
        epoch = tonumber(f[5]), entry = f[6], deliveries = tonumber(f[7]), max = tonumber(f[8]),
        group = f[9], first = tonumber(f[10] or 0), members = tonumber(f[11] or 0),
        worker = f[12], closed = f[13],
    }
end

-- Every change of state passes here: the counts of the queue stay true.
local function move(task, state, ...)
    if COUNTED[task.state] then
        redis.call('HINCRBY', key('depth', task.queue), task.state, -1)
    end
    if COUNTED[state] then
        redis.call('HINCRBY', key('depth', task.queue), state, 1)
    end
    task.state = state
    redis.call('HSET', key('task', task.id), 'state', state, ...)
end

local function ensure_stream(queue)
    local stream = key('queue', queue)
    if redis.call('EXISTS', stream) == 0 then
        redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    end
    return stream
end

-- Acknowledges the delivered entry of a task. The entry lies before the group's position, so that
-- deleting it leaves the group's lag known.
local function acknowledge(queue, entry)
    local stream = key('queue', queue)
    redis.call('XACK', stream, GROUP, entry)
    redis.call('XDEL', stream, entry)
end

-- Takes a leased or delayed task out of where it waits.
local function take_out(task)
    if task.state == 'leased' then
        acknowledge(task.queue, task.entry)
    end
    redis.call('ZREM', key('timers', task.queue), task.id)
end

local function make_ready(task)
    local stream = ensure_stream(task.queue)
    local entry = redis.call('XADD', stream, '*', 'task', task.id)
    task.entry = entry
    move(task, 'ready', 'entry', entry)
end

local function touch_job(job)
    redis.call('HSET', key('job', job), 'updated', digits(NOW))
end

-- Makes a task of spec {queue, kind, payload, max}; more fields may follow. Its number is `n`.
local function create_task(job, n, spec, state, ...)
    local id = job .. '-' .. digits(n)
    redis.call('HSET', key('task', id), 'job', job, 'queue', spec.queue, 'kind', spec.kind,
        'payload', spec.payload, 'max', spec.max, 'state', state, 'deliveries', 0, 'epoch', 0, ...)
    redis.call('SADD', key('open', job), id)
    return {id = id, job = job, queue = spec.queue, kind = spec.kind, state = state}
end

local function expire_task(id)
    redis.call('PEXPIRE', key('task', id), RETENTION)
end

-- Members of a group keep their results until the continuation has ended: then all go together.
local function expire_members(continuation)
    if continuation.members == 0 then
        return
    end
    for i = 0, continuation.members - 1 do
        expire_task(continuation.job .. '-' .. digits(continuation.first + i))
    end
    redis.call('DEL', key('group', continuation.id))
end

local function job_state(job)
    return redis.call('HGET', key('job', job), 'state')
end

-- Ends a job that runs: what is open is cancelled, the event is its last one.
local function end_job(job, state, field, value, ...)
    redis.call('HSET', key('job', job), 'state', state, 'updated', digits(NOW), 'ended',
        digits(NOW), 'away_ended', digits(away()))
    if field then
        redis.call('HSET', key('job', job), field, value)
    end
    redis.call('SREM', PREFIX .. ':running', job)
    for _, id in ipairs(redis.call('SMEMBERS', key('open', job))) do
        local task = load(id)
        if task then
            take_out(task)
            move(task, 'cancelled') -- the entry of a ready task is skipped when it is claimed
            expire_task(id)
            expire_members(task)
        end
    end
    redis.call('DEL', key('open', job))
    event(job, state, ...)
    redis.call('PEXPIRE', key('events', job), RETENTION)
end

-- What every end of a task (succeeded, failed) means for its group and its job.
local function end_task(task, state, ...)
    take_out(task)
    move(task, state, ...)
    redis.call('SREM', key('open', task.job), task.id)
    touch_job(task.job)
    expire_members(task)
    if not task.group then
        expire_task(task.id)
    elseif redis.call('DECR', key('group', task.group)) == 0 then
        local continuation = load(task.group)
        if continuation and continuation.state == 'waiting' then
            make_ready(continuation)
        end
    end
end

local function check_job_goes_on(job)
    if redis.call('SCARD', key('open', job)) == 0 and job_state(job) == 'running' then
        local reason = 'all tasks have ended and none of them finished the job'
        end_job(job, 'failed', 'error', reason, 'error', reason)
    end
end

-- A task that will not be tried again.
local function die(task, reason)
    end_task(task, 'failed', 'reason', reason)
    if not task.group then
        end_job(task.job, 'failed', 'error', reason, 'error', reason, 'task', task.id,
            'kind', task.kind)
        return
    end
    event(task.job, 'dead', 'task', task.id, 'kind', task.kind, 'delivery', task.deliveries,
        'reason', reason)
    check_job_goes_on(task.job)
end

-- The task, when `epoch` holds its lease. Else nil and the answer: success when the same holder did
-- the same before and has not heard of it, a refusal otherwise.
local function held_task(id, epoch, verb)
    local task = load(id)
    if not task then
        return nil, refuse(ABORTED, 'task ' .. id .. ' is not known (any more)')
    end
    if task.closed == verb .. ':' .. epoch then
        return nil, {0}
    end
    if task.epoch ~= tonumber(epoch) then
        return nil, refuse(ABORTED, 'task ' .. id .. ': the lease was lost, somebody else has it')
    end
    if task.state == 'cancelled' then
        return nil, refuse(CANCELLED, 'task ' .. id .. ': its job has ended')
    end
    if task.state ~= 'leased' then
        return nil, refuse(ABORTED, 'task ' .. id .. ': the lease was lost, it is ' .. task.state)
    end
    return task
end
