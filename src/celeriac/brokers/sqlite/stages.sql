-- Messages put aside until their send is complete. Each statement runs inside a transaction of its caller (stages.py).

-- :add  stage, id, queue, step, due
INSERT INTO staged (stage, id, queue, step, due) VALUES (?, ?, ?, ?, ?);

-- :count  stage
SELECT count(*) FROM staged WHERE stage = ?;

-- :ready  stage, now
INSERT INTO ready (queue, step, position, id, alone)
SELECT queue, step, id, id, 0 FROM staged WHERE stage = ?1 AND (due IS NULL OR due <= ?2);

-- :schedule  stage, now
INSERT INTO schedule (queue, due, id, step, alone)
SELECT queue, due, id, step, 0 FROM staged WHERE stage = ?1 AND due > ?2;

-- :queues  stage
SELECT DISTINCT queue FROM staged WHERE stage = ?;

-- :drop  stage
DELETE FROM staged WHERE stage = ?;

-- :old  moment: stages whose newest message was put aside before it; jumps from stage to stage
WITH RECURSIVE name(stage) AS (
    SELECT min(stage) FROM staged
    UNION ALL
    SELECT (SELECT min(s.stage) FROM staged AS s WHERE s.stage > name.stage) FROM name WHERE name.stage IS NOT NULL
)
SELECT stage FROM name WHERE stage IS NOT NULL
    AND (SELECT at FROM message WHERE id = (SELECT max(s.id) FROM staged AS s WHERE s.stage = name.stage)) < ?;

-- :drop_messages  stage
DELETE FROM message WHERE id IN (SELECT id FROM staged WHERE stage = ?);
