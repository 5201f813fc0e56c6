-- The ledger. Each statement runs inside a transaction of its caller (ledger_table.py).

-- :read  key, now
SELECT value FROM ledger WHERE key = ? AND (expires IS NULL OR expires > ?);

-- :write  key, value, expires
INSERT INTO ledger (key, value, expires) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires;

-- :drop  key
DELETE FROM ledger WHERE key = ?;

-- :free  key, two values: the lock of a task, waiting or started
DELETE FROM ledger WHERE key = ? AND value IN (?, ?);

-- :drop_expired  now, limit
DELETE FROM ledger WHERE key IN (SELECT key FROM ledger WHERE expires <= ? LIMIT ?);
