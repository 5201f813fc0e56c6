-- Events, remote control and its replies: rows that listeners read once and that go after a minute.

-- :add  exchange, routing_key, expires, headers, payload
INSERT INTO bus (exchange, routing_key, expires, headers, payload) VALUES (?, ?, ?, ?, ?);

-- :last
SELECT coalesce(max(seq), 0) FROM (SELECT max(seq) AS seq FROM bus UNION ALL SELECT seq FROM sqlite_sequence WHERE name = 'bus');

-- :since  seq, limit
SELECT seq, exchange, routing_key, headers, payload FROM bus WHERE seq > ? ORDER BY seq LIMIT ?;

-- :drop_old  now, number to keep
DELETE FROM bus WHERE expires <= ?1 OR seq <= (SELECT max(seq) FROM bus) - ?2;
