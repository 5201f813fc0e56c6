-- What relays and the command line ask of an outbox on PostgreSQL.

-- :look  one look of an idle relay
SELECT EXISTS (SELECT FROM celeriac_outbox WHERE NOT failed AND (retry_at IS NULL OR retry_at <= now()));

-- :take  limit; inside a transaction, which holds the rows
SELECT id, kind, task, task_id, queue, body,
    greatest(0, extract(epoch FROM clock_timestamp() - created))::float8, attempts, coalesce(error, ''), failed
FROM celeriac_outbox
WHERE NOT failed AND (retry_at IS NULL OR retry_at <= now())
ORDER BY seq LIMIT %s
FOR UPDATE SKIP LOCKED;

-- :done  ids
DELETE FROM celeriac_outbox WHERE id = ANY(%s);

-- :fault  seconds or null, null when it fails for good, error, id
UPDATE celeriac_outbox
SET attempts = attempts + 1, retry_at = clock_timestamp() + %s * interval '1 second', failed = %s, error = %s
WHERE id = %s;

-- :standing
SELECT count(*) FILTER (WHERE NOT failed), count(*) FILTER (WHERE failed),
    coalesce(greatest(0, extract(epoch FROM clock_timestamp() - min(created) FILTER (WHERE NOT failed))), 0)::float8
FROM celeriac_outbox;

-- :list  failed or null, the same, limit
SELECT id, kind, task, task_id, queue, body,
    greatest(0, extract(epoch FROM clock_timestamp() - created))::float8, attempts, coalesce(error, ''), failed
FROM celeriac_outbox
WHERE %s::boolean IS NULL OR failed = %s
ORDER BY seq LIMIT %s;

-- :retry  ids; a waiting one is due at once
UPDATE celeriac_outbox SET failed = false, retry_at = NULL, attempts = 0
WHERE id = ANY(%s) OR task_id = ANY(%s);

-- :retry_failed
UPDATE celeriac_outbox SET failed = false, retry_at = NULL, attempts = 0 WHERE failed;

-- :drop  ids
DELETE FROM celeriac_outbox WHERE id = ANY(%s) OR task_id = ANY(%s);

-- :drop_failed
DELETE FROM celeriac_outbox WHERE failed;
