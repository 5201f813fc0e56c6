-- What relays and the command line ask of an outbox on SQLite. Ids come as a JSON array.

-- :take  now, limit
SELECT id, kind, task, task_id, queue, body, max(0.0, ?1 - created), attempts, coalesce(error, ''), failed
FROM celeriac_outbox
WHERE NOT failed AND (retry_at IS NULL OR retry_at <= ?1)
ORDER BY seq LIMIT ?2;

-- :done  ids
DELETE FROM celeriac_outbox WHERE id IN (SELECT value FROM json_each(?));

-- :fault  moment or null, whether it failed for good, error, id
UPDATE celeriac_outbox SET attempts = attempts + 1, retry_at = ?, failed = ?, error = ? WHERE id = ?;

-- :standing  now
SELECT count(*) FILTER (WHERE NOT failed), count(*) FILTER (WHERE failed),
    max(0.0, coalesce(?1 - min(created) FILTER (WHERE NOT failed), 0.0))
FROM celeriac_outbox;

-- :list  now, failed or null, limit
SELECT id, kind, task, task_id, queue, body, max(0.0, ?1 - created), attempts, coalesce(error, ''), failed
FROM celeriac_outbox
WHERE ?2 IS NULL OR failed = ?2
ORDER BY seq LIMIT ?3;

-- :retry  ids; a waiting one is due at once
UPDATE celeriac_outbox SET failed = 0, retry_at = NULL, attempts = 0
WHERE id IN (SELECT value FROM json_each(?1)) OR task_id IN (SELECT value FROM json_each(?1));

-- :retry_failed
UPDATE celeriac_outbox SET failed = 0, retry_at = NULL, attempts = 0 WHERE failed;

-- :drop  ids
DELETE FROM celeriac_outbox
WHERE id IN (SELECT value FROM json_each(?1)) OR task_id IN (SELECT value FROM json_each(?1));

-- :drop_failed
DELETE FROM celeriac_outbox WHERE failed;
