-- Chords and their members. Each statement runs inside a transaction of its caller (chords.py).

-- :find  id
SELECT key, size, grown, joined, done, bare, life, expires, token, leased, until, look, boot FROM chord WHERE id = ?;

-- :add  id
INSERT INTO chord (id, grown, joined, done, bare, leased, until, look, boot) VALUES (?, 0, 0, 0, 1, 0, 0, 0, 0);

-- :count  grown, joined, life, expires, key: what a member changes; no index has any of it
UPDATE chord SET grown = ?, joined = ?, life = ?, expires = ? WHERE key = ?;

-- :write  size, grown, joined, done, bare, life, expires, token, leased, until, look, boot, key
UPDATE chord SET size = ?, grown = ?, joined = ?, done = ?, bare = ?, life = ?, expires = ?, token = ?, leased = ?,
    until = ?, look = ?, boot = ? WHERE key = ?;

-- :drop  key
DELETE FROM chord WHERE key = ?;

-- :add_text  key, body, shape: an empty one leaves what is there
INSERT INTO chord_text (chord, body, shape) VALUES (?, ?, ?) ON CONFLICT (chord) DO UPDATE SET
    body = iif(length(excluded.body), excluded.body, body), shape = iif(length(excluded.shape), excluded.shape, shape);

-- :text  key
SELECT body, shape FROM chord_text WHERE chord = ?;

-- :drop_text  key
DELETE FROM chord_text WHERE chord = ?;

-- :add_part  key, place, id, value: nothing when that member is there
INSERT OR IGNORE INTO part (chord, place, id, value) VALUES (?, ?, ?, ?);

-- :parts  key: in their order
SELECT value FROM part WHERE chord = ? ORDER BY place, id;

-- :drop_parts  key
DELETE FROM part WHERE chord = ?;

-- :is_leased  claim, message id
SELECT 1 FROM lease WHERE claim = ? AND id = ?;

-- :due  boot, uptime, limit: those to be looked at, and all of an earlier boot. Three searches in an index.
SELECT id, joined, expires FROM chord WHERE boot = ?1 AND look <= ?2
UNION ALL SELECT id, joined, expires FROM chord WHERE boot < ?1
UNION ALL SELECT id, joined, expires FROM chord WHERE boot > ?1 LIMIT ?3;

-- :due_and_over  boot, uptime, now, limit: those of them whose life time is over
SELECT id, joined, expires FROM chord WHERE boot = ?1 AND look <= ?2 AND expires <= ?3
UNION ALL SELECT id, joined, expires FROM chord WHERE boot < ?1 AND expires <= ?3
UNION ALL SELECT id, joined, expires FROM chord WHERE boot > ?1 AND expires <= ?3 LIMIT ?4;
