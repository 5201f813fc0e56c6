-- Dead letters: looked at, sent again, dropped. Each statement runs inside a transaction of its caller (dead.py).

-- :newest  limit
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw
FROM dead ORDER BY key DESC LIMIT ?;

-- :newest_of_queue  queue, limit
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw
FROM dead WHERE queue = ? ORDER BY key DESC LIMIT ?;

-- :before  key, limit: those older than this one
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw
FROM dead WHERE key < ? ORDER BY key DESC LIMIT ?;

-- :get  key
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw
FROM dead WHERE key = ?;

-- :drop  key
DELETE FROM dead WHERE key = ?;

-- :drop_old  at, limit
DELETE FROM dead WHERE key IN (SELECT key FROM dead WHERE at < ? LIMIT ?);

-- :drop_surplus  number to keep
DELETE FROM dead WHERE key <= (SELECT key FROM dead ORDER BY key DESC LIMIT 1 OFFSET ?);

-- :size  answered by the index dead_size alone
SELECT coalesce(sum(length(raw) + length(traceback)), 0) FROM dead;

-- :oldest_sizes  limit
SELECT key, length(raw) + length(traceback) FROM dead ORDER BY key LIMIT ?;

-- :drop_oldest  key: up to and including this one
DELETE FROM dead WHERE key <= ?;
