-- Paces, seats and those who wait for one. Each statement runs inside a transaction of its caller (limits.py).

-- :pace  bucket
SELECT start, line FROM pace WHERE bucket = ?;

-- :set_pace  bucket, start, line
INSERT INTO pace (bucket, start, line) VALUES (?, ?, ?)
ON CONFLICT (bucket) DO UPDATE SET start = excluded.start, line = excluded.line;

-- :drop_paces  now: those that say nothing any more
DELETE FROM pace WHERE start <= ?1 AND line <= ?1;

-- :seats  key: id, claim, until
SELECT id, claim, until FROM seat
WHERE key = ?1 AND (claim IS NULL OR EXISTS (SELECT 1 FROM lease WHERE lease.claim = seat.claim AND lease.id = seat.id));

-- :take_seat  key, id, claim, until
INSERT OR REPLACE INTO seat (key, id, claim, until) VALUES (?, ?, ?, ?);

-- :leave_seat  key, id
DELETE FROM seat WHERE key = ? AND id = ?;

-- :drop_seats  moment: seats of leases that have ended, promises that have ended before it
DELETE FROM seat WHERE (claim IS NULL AND until <= ?1)
    OR (claim IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.claim = seat.claim AND lease.id = seat.id));

-- :park  key, position, id, alone, most, id: with queue and step of the message
INSERT INTO parked (key, position, id, alone, most, queue, step)
SELECT ?, ?, ?, ?, ?, queue, step FROM message WHERE id = ?;

-- :ends  key: the first and the last position; apart, for together they would be looked for in all rows
SELECT (SELECT min(position) FROM parked WHERE key = ?1), (SELECT max(position) FROM parked WHERE key = ?1);

-- :forgo_seat  key, id, now: what is kept for it is free
UPDATE seat SET until = min(until, ?3) WHERE key = ?1 AND id = ?2 AND claim IS NULL;

-- :first_parked  key, what pause rules begin with, now, limit: of those whose queues are not paused
SELECT position, id, queue, step, alone FROM parked WHERE key = ?1 AND NOT EXISTS (
    SELECT 1 FROM rule
    WHERE rule.key = ?2 || parked.queue AND value IS NOT NULL AND (expires IS NULL OR expires > ?3)
) ORDER BY position, id LIMIT ?4;

-- :unpark  key, position, id
DELETE FROM parked WHERE key = ? AND position = ? AND id = ?;

-- :parks  each key that somebody waits for, with how many seats there are; jumps from key to key
WITH RECURSIVE name(key) AS (
    SELECT min(key) FROM parked
    UNION ALL
    SELECT (SELECT min(p.key) FROM parked AS p WHERE p.key > name.key) FROM name WHERE name.key IS NOT NULL
)
SELECT key, (SELECT most FROM parked AS p WHERE p.key = name.key LIMIT 1) FROM name WHERE key IS NOT NULL;

-- :waits  key
SELECT EXISTS (SELECT 1 FROM parked WHERE key = ?);

-- :parked_in  queue, limit
SELECT id FROM parked WHERE queue = ? LIMIT ?;

-- :drop_parked  queue, ids as JSON
DELETE FROM parked WHERE queue = ? AND id IN (SELECT value FROM json_each(?));
