-- ARGV: 2 "take", "drop" or "held", 3 name, 4 holder ("": nobody), 5 ms
-- Answer: 0, then 1 or 0
local name = key('lease', ARGV[3])
local holder = redis.call('GET', name)
local mine = holder == ARGV[4]
if ARGV[2] == 'held' then
    return {0, (holder and not mine) and 1 or 0}
elseif ARGV[2] == 'drop' then
    if mine then
        redis.call('DEL', name)
    end
    return {0, mine and 1 or 0}
end
if holder and not mine then
    return {0, 0}
end
redis.call('SET', name, ARGV[4], 'PX', ARGV[5])
return {0, 1}
