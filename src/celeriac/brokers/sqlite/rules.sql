-- Rules of the fleet, and messages taken out of the midst of their queues. Each statement runs inside a transaction of its
-- caller (rules.py).

-- :epoch  the epoch now, and the last one of all dropped rules that are forgotten
SELECT epoch, floor FROM rule_epoch;

-- :set_epoch  epoch
INSERT INTO rule_epoch (one, epoch, floor) VALUES (1, ?, 0) ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch;

-- :set_floor  epoch
UPDATE rule_epoch SET floor = max(floor, ?);

-- :put  key, value, expires, epoch
INSERT OR REPLACE INTO rule (key, value, expires, epoch) VALUES (?, ?, ?, ?);

-- :forgotten  now: the last epoch of the dropped rules whose time is over
SELECT max(epoch) FROM rule WHERE expires <= ? AND value IS NULL;

-- :drop_expired  now
DELETE FROM rule WHERE expires <= ?;

-- :surplus  first key, key behind the last, number to keep: the last epoch of those beyond it, the oldest changes
SELECT epoch FROM rule WHERE key >= ? AND key < ? ORDER BY epoch DESC LIMIT 1 OFFSET ?;

-- :drop_surplus  first key, key behind the last, epoch
DELETE FROM rule WHERE key >= ? AND key < ? AND epoch <= ?;

-- :changed  epoch
SELECT key, value, expires, epoch FROM rule WHERE epoch > ? ORDER BY epoch;

-- :in_force
SELECT key, value, expires, epoch FROM rule WHERE value IS NOT NULL ORDER BY epoch;

-- :page  queues as JSON, last id seen, limit: messages of some queues, the oldest first
SELECT id, envelope FROM message WHERE id > ?2 AND queue IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT ?3;

-- :in_ready  queue, step, ids as JSON: those in the order of their arrival, whose positions are their ids
SELECT id FROM ready WHERE queue = ? AND step = ? AND position IN (SELECT value FROM json_each(?)) AND id = position;

-- :drop_from_ready  queue, step, ids as JSON
DELETE FROM ready WHERE queue = ? AND step = ? AND position IN (SELECT value FROM json_each(?)) AND id = position;

-- :in_front  queue, step, ids as JSON: those that were due or given back
SELECT id FROM ready WHERE queue = ? AND step = ? AND position < 0 AND id IN (SELECT value FROM json_each(?));

-- :drop_from_front  queue, step, ids as JSON
DELETE FROM ready WHERE queue = ? AND step = ? AND position < 0 AND id IN (SELECT value FROM json_each(?));

-- :in_schedule  queue, ids as JSON
SELECT id FROM schedule WHERE queue = ? AND id IN (SELECT value FROM json_each(?));

-- :drop_from_schedule  queue, ids as JSON
DELETE FROM schedule WHERE queue = ? AND id IN (SELECT value FROM json_each(?));

-- :in_parks  queue, ids as JSON
SELECT id FROM parked WHERE queue = ? AND id IN (SELECT value FROM json_each(?));

-- :drop_from_parks  queue, ids as JSON
DELETE FROM parked WHERE queue = ? AND id IN (SELECT value FROM json_each(?));

-- :lanes  ids as JSON
SELECT id, queue, step FROM message WHERE id IN (SELECT value FROM json_each(?));
