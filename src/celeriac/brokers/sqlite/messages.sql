-- Messages, leases, dead letters. Each statement runs inside a transaction of its caller (queues.py, upkeep.py).

-- :last_id
SELECT max(id) FROM message;

-- :add_message  id, queue, step, at, envelope
INSERT INTO message (id, queue, step, at, envelope) VALUES (?, ?, ?, ?, ?);

-- :add_ready_since  id: all messages added after it are ready
INSERT INTO ready (queue, step, position, id, alone) SELECT queue, step, id, id, 0 FROM message WHERE id > ?;

-- :add_ready  queue, step, position, id, alone
INSERT INTO ready (queue, step, position, id, alone) VALUES (?, ?, ?, ?, ?);

-- :front  queue, step: the position of the next one
SELECT min(position) FROM ready WHERE queue = ? AND step = ?;

-- :add_schedule  queue, due, id, step, alone
INSERT INTO schedule (queue, due, id, step, alone) VALUES (?, ?, ?, ?, ?);

-- :glance  queue: is something ready, when is the next one due, and the epoch of the rules
SELECT EXISTS (SELECT 1 FROM ready WHERE queue = ?1), (SELECT min(due) FROM schedule WHERE queue = ?1),
       (SELECT epoch FROM rule_epoch);

-- :due  queue, now, limit
SELECT due, id, step, alone FROM schedule WHERE queue = ? AND due <= ? ORDER BY due, id LIMIT ?;

-- :drop_due  queue, due, id: up to and including this one
DELETE FROM schedule WHERE queue = ? AND (due, id) <= (?, ?);

-- :next_dues  the next due time of each queue; jumps from queue to queue instead of reading the whole schedule
WITH RECURSIVE name(queue) AS (
    SELECT min(queue) FROM schedule
    UNION ALL
    SELECT (SELECT min(s.queue) FROM schedule AS s WHERE s.queue > name.queue) FROM name WHERE name.queue IS NOT NULL
)
SELECT queue, (SELECT min(due) FROM schedule AS s WHERE s.queue = name.queue) FROM name WHERE queue IS NOT NULL;

-- :ready  queue, limit: the next ones
SELECT step, position, id, alone FROM ready WHERE queue = ? ORDER BY step, position, id LIMIT ?;

-- :ready_step  queue, step, limit
SELECT step, position, id, alone FROM ready WHERE queue = ? AND step = ? ORDER BY position, id LIMIT ?;

-- :drop_ready  queue, step, position, id: up to and including this one
DELETE FROM ready WHERE queue = ? AND (step, position, id) <= (?, ?, ?);

-- :drop_ready_step  queue, step, position, id: up to and including this one, within the step
DELETE FROM ready WHERE queue = ? AND step = ? AND (position, id) <= (?, ?);

-- :add_leases  claim, owner, until, boot, ids as JSON
INSERT INTO lease (claim, id, owner, until, boot) SELECT ?, value, ?, ?, ? FROM json_each(?);

-- :envelopes  ids as JSON
SELECT id, queue, envelope FROM message WHERE id IN (SELECT value FROM json_each(?));

-- :locked  ids as JSON, text: those that contain it
SELECT envelope FROM message WHERE id IN (SELECT value FROM json_each(?)) AND instr(envelope, ?) > 0;

-- :envelopes_between  first id, last id: for claims without gaps, at half the cost
SELECT id, queue, envelope FROM message WHERE id BETWEEN ? AND ?;

-- :held  claim
SELECT id FROM lease WHERE claim = ?;

-- :end_claim  claim
DELETE FROM lease WHERE claim = ?;

-- :end_leases  claim, ids as JSON
DELETE FROM lease WHERE claim = ? AND id IN (SELECT value FROM json_each(?));

-- :extend_claim  until, boot, claim
UPDATE lease SET until = ?, boot = ? WHERE claim = ?;

-- :extend_leases  until, boot, claim, ids as JSON
UPDATE lease SET until = ?, boot = ? WHERE claim = ? AND id IN (SELECT value FROM json_each(?));

-- :drop_messages  ids as JSON
DELETE FROM message WHERE id IN (SELECT value FROM json_each(?));

-- :drop_messages_between  first id, last id
DELETE FROM message WHERE id BETWEEN ? AND ?;

-- :place  id
SELECT queue, step FROM message WHERE id = ?;

-- :rewrite  envelope, id
UPDATE message SET envelope = ? WHERE id = ?;

-- :move_back  new id, old id
UPDATE message SET id = ? WHERE id = ?;

-- :owned  owner
SELECT lease.claim, lease.id, message.queue, message.envelope
FROM lease JOIN message ON message.id = lease.id WHERE lease.owner = ? ORDER BY lease.id;

-- :expired  boot, uptime, limit: leases past their time or of an earlier boot, with how many their owner holds
SELECT lease.claim, lease.id, message.queue, message.step, message.envelope, owners.held
FROM lease
JOIN message ON message.id = lease.id
JOIN (SELECT owner, count(*) AS held FROM lease GROUP BY owner) AS owners ON owners.owner = lease.owner
WHERE lease.boot != ?1 OR lease.until <= ?2 ORDER BY lease.id LIMIT ?3;

-- :next_expiry
SELECT min(until) FROM lease;

-- :add_dead  id, task, queue, reason, detail, exception, worker, at, crashes, traceback, raw
INSERT INTO dead (id, task, queue, reason, detail, exception, worker, at, crashes, traceback, raw)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- :depth  queue
SELECT (SELECT count(*) FROM ready WHERE queue = ?1),
       (SELECT count(*) FROM schedule WHERE queue = ?1) + (SELECT count(*) FROM parked WHERE queue = ?1),
       (SELECT count(*) FROM lease JOIN message ON message.id = lease.id WHERE message.queue = ?1),
       (SELECT count(*) FROM dead WHERE queue = ?1),
       (SELECT min(at) FROM message WHERE id IN (
            SELECT (SELECT id FROM ready WHERE queue = ?1 AND step = column1 ORDER BY position LIMIT 1) FROM (VALUES (0), (3), (6), (9))));
