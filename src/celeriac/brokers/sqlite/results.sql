-- Result records. Task ids are random: with a unique index on them nearly every result dirties a page (ADR 0003). So
-- records are appended, and an index of hashes starts anew every 8192 records, small enough that a batch shares its
-- pages. A look-up asks each bucket, newest first: 0.1-0.2 ms with a million records.

-- :last
SELECT last FROM bucket ORDER BY number DESC LIMIT 1;

-- :add  seq, weak, expires, id, body
INSERT INTO result (seq, weak, expires, id, body) VALUES (?, ?, ?, ?, ?);

-- :add_findings  first seq, hashes as JSON
INSERT INTO finding (bucket, hash, seq) SELECT (?1 + key) >> 13, value, ?1 + key FROM json_each(?2);

-- :note_bucket  number, last, earliest
INSERT INTO bucket (number, last, earliest) VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET
    last = excluded.last,
    earliest = min(coalesce(earliest, excluded.earliest), coalesce(excluded.earliest, earliest));

-- :find  hash, id: newest first
SELECT result.seq, result.weak, result.expires, result.body
FROM bucket
CROSS JOIN finding ON finding.bucket = bucket.number AND finding.hash = ?
CROSS JOIN result ON result.seq = finding.seq
WHERE result.id = ? ORDER BY bucket.number DESC, finding.seq DESC;

-- :in_bucket  bucket, hashes as JSON: newest first
SELECT result.seq, result.id, result.expires, result.body
FROM json_each(?2) AS wanted
CROSS JOIN finding ON finding.bucket = ?1 AND finding.hash = wanted.value
CROSS JOIN result ON result.seq = finding.seq ORDER BY result.seq DESC;

-- :written_since  seq
SELECT seq, id FROM result WHERE seq > ? ORDER BY seq LIMIT 10000;

-- :buckets_expired  now
SELECT number FROM bucket WHERE earliest <= ? ORDER BY number;

-- :expired  first seq, last seq, now, limit
SELECT seq, id FROM result WHERE seq BETWEEN ? AND ? AND expires <= ? LIMIT ?;

-- :drop  seqs as JSON
DELETE FROM result WHERE seq IN (SELECT value FROM json_each(?));

-- :drop_finding  bucket, hash, seq
DELETE FROM finding WHERE bucket = ? AND hash = ? AND seq = ?;

-- :refresh_bucket  first seq, last seq, number
UPDATE bucket SET earliest = (SELECT min(expires) FROM result WHERE seq BETWEEN ? AND ?) WHERE number = ?;

-- :drop_empty_buckets  all but the newest
DELETE FROM bucket WHERE number < (SELECT max(number) FROM bucket)
    AND NOT EXISTS (SELECT 1 FROM result WHERE seq BETWEEN number << 13 AND (number << 13) + 8191);
