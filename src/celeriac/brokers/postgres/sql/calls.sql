-- How the functions of the schema are called, by name. Each is one round trip. An argument is ? and its type (wire.py).

-- :version
SELECT number FROM {schema}.version

-- :publish  rows, queues
CALL {schema}.publish(?::text[], ?::smallint[], ?::float8[], ?::bytea[], ?::text[])

-- :publish_if  rows, changes
CALL {schema}.publish_if(?::text[], ?::smallint[], ?::float8[], ?::bytea[], ?::text[], ?::bytea[], ?::boolean[], ?::bytea[], ?::float8[], NULL)

-- :publish_in  rows, queues: in the transaction that is open; waiters are told at its commit
SELECT {schema}.add(?::text[], ?::smallint[], ?::float8[], ?::bytea[]), {schema}.announce(?::text[])

-- :stage  stage, rows
SELECT {schema}.stage(?::text, ?::text[], ?::smallint[], ?::float8[], ?::bytea[])

-- :launch  stage, count
CALL {schema}.launch(?::text, ?::integer, NULL)

-- :claim  queues, limit, owner, claim, lease, held doors, marks
SELECT * FROM {schema}.claim(?::text[], ?::integer, ?::text, ?::bigint, ?::float8, ?::text[], ?::bigint[])

-- :mine  lease, owner, claims: what claims whose answer got lost have taken; its leases begin anew
WITH held AS (
    UPDATE {schema}.lease AS l SET until = {schema}.moment() + ?::float8
    WHERE l.owner = ?::text AND l.claim = ANY (?::bigint[]) RETURNING l.claim, l.id
) SELECT h.claim, h.id, m.queue, m.envelope FROM held AS h JOIN {schema}.message AS m ON m.id = h.id ORDER BY h.id

-- :owned  owner
SELECT l.claim, l.id, m.queue, m.envelope FROM {schema}.lease AS l JOIN {schema}.message AS m ON m.id = l.id
WHERE l.owner = ?::text ORDER BY l.id

-- :attend  queues, listening
SELECT {schema}.attend(?::text[], ?::boolean)

-- :leave  queues
SELECT {schema}.leave(?::text[])

-- :finish  claims, ids, results, rows, locks, queues
CALL {schema}.finish(?::bigint[], ?::bigint[], ?::text[], ?::bytea[], ?::boolean[], ?::boolean[], ?::float8[], ?::integer[], ?::text[], ?::smallint[], ?::float8[], ?::bytea[], ?::integer[], ?::text[], ?::bytea[], ?::bytea[], ?::text[], NULL)

-- :finish_each  completions, seconds of a token, queues, results
CALL {schema}.finish_each(?::jsonb, ?::float8, ?::text[], ?::text[], NULL)

-- :extend  claims, ids, lease
SELECT {schema}.extend(?::bigint[], ?::bigint[], ?::float8)

-- :put  results
CALL {schema}.store(?::text[], ?::bytea[], ?::boolean[], ?::boolean[], ?::float8[])

-- :get  ids
SELECT * FROM {schema}.find(?::text[])

-- :ended  ids
SELECT {schema}.ended(?::text[])

-- :await  ids, channel
SELECT {schema}.await(?::text[], ?::text)

-- :await_no_more  channel
DELETE FROM {schema}.waiter WHERE channel = ?::text

-- :forget  ids
DELETE FROM {schema}.result WHERE id = ANY (?::text[])

-- :sweep_results  limit
SELECT {schema}.sweep_results(?::integer)

-- :sweep_chords  limit
SELECT {schema}.sweep_chords(?::integer)

-- :open_chords  chords, seconds of a token
SELECT {schema}.open_chord(value, ?::float8) FROM jsonb_array_elements(?::jsonb) ORDER BY value ->> 'id'

-- :join  parts, token, its claim, its id, seconds of a token
SELECT {schema}.join_all(?::jsonb, ?::text, ?::bigint, ?::bigint, ?::float8)

-- :renew_chord  chord, token, its claim, its id, seconds of a token
SELECT {schema}.renew_chord(?::text, ?::text, ?::bigint, ?::bigint, ?::float8)

-- :lent_chord  chord, token
SELECT * FROM {schema}.lent_chord(?::text, ?::text)

-- :close_chord  chord, token
SELECT {schema}.close_chord(?::text, ?::text)

-- :grow_chord  chord, by, seconds of a token
SELECT {schema}.grow_chord(?::text, ?::integer, ?::float8)

-- :chord_is_due
SELECT {schema}.chord_is_due()

-- :look_at_chords  token, limit, seconds of a token
SELECT {schema}.look_at_chords(?::text, ?::integer, ?::float8)

-- :moment
SELECT {schema}.moment()

-- :read_ledger  keys
SELECT {schema}.read_ledger(?::text[])

-- :change_ledger  changes
SELECT {schema}.change_ledger(?::text[], ?::bytea[], ?::boolean[], ?::bytea[], ?::float8[])

-- :free  locks
SELECT {schema}.free(?::text[], ?::bytea[], ?::bytea[])

-- :read_rules  after, prefix
SELECT * FROM {schema}.read_rules(?::bigint, ?::text)

-- :set_rules  changes, seconds of a tombstone, prefix of those that are limited, how many
SELECT {schema}.set_rules(?::text[], ?::bytea[], ?::float8[], ?::float8, ?::text, ?::integer)

-- :search  queues, forms, after, limit
SELECT * FROM {schema}.search(?::text[], ?::bytea[], ?::bigint, ?::integer)

-- :withdraw  ids, owner, claim, lease
SELECT * FROM {schema}.withdraw(?::bigint[], ?::text, ?::bigint, ?::float8)

-- :permit  asks, seconds of a promise, slack, what pauses begin with
CALL {schema}.permit(?::bigint[], ?::bigint[], ?::text[], ?::float8[], ?::boolean[], ?::text[], ?::integer[], ?::boolean[], ?::float8, ?::float8, ?::text, NULL, NULL)

-- :freed  seats, those that are forgone, seconds of a promise, what pauses begin with
CALL {schema}.freed(?::text[], ?::integer[], ?::text[], ?::bigint[], ?::float8, ?::text)

-- :parks
SELECT * FROM {schema}.parks()

-- :dead_before  key, queue, limit
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw FROM {schema}.dead_before(?::bigint, ?::text, ?::integer)

-- :dead  keys
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw FROM {schema}.dead WHERE key = ANY (?::bigint[])

-- :replay  letters, rows, changes
CALL {schema}.replay(?::bigint[], ?::text[], ?::smallint[], ?::float8[], ?::bytea[], ?::boolean[], ?::text[], ?::bytea[], ?::boolean[], ?::bytea[], ?::float8[], NULL, NULL)

-- :drop_dead  keys
SELECT {schema}.drop_dead(?::bigint[])

-- :trim_dead  seconds, number, bytes
SELECT {schema}.trim_dead({schema}.moment() - ?::float8, ?::bigint, ?::bigint)

-- :expired  limit
SELECT * FROM {schema}.expired(?::integer)

-- :restore  claims, ids, envelopes
SELECT {schema}.restore(?::bigint[], ?::bigint[], ?::bytea[])

-- :ripen_all
SELECT {schema}.ripen_all()

-- :wake  queues
SELECT {schema}.wake(?::text[])

-- :next_times
SELECT * FROM {schema}.next_times()

-- :drop_stages  seconds
SELECT {schema}.drop_stages({schema}.moment() - ?::float8)

-- :tidy  seconds for which a promise of a seat is remembered
SELECT {schema}.tidy(?::float8)

-- :depth  queues
SELECT * FROM {schema}.depth(?::text[])

-- :purge  queue, limit, mark
SELECT * FROM {schema}.purge(?::text, ?::integer, ?::bytea)

-- :emit  exchange, routing key, headers, payload, whether it is a reply
SELECT {schema}.emit(?::text, ?::text, ?::bytea, ?::bytea, ?::boolean)

-- :hear  exchange, name, whether to listen
SELECT {schema}.hear(?::text, ?::text, ?::boolean)

-- :turn_away  exchange, name
SELECT {schema}.turn_away(?::text, ?::text)

-- :heard  exchange, routing key, after, limit
SELECT * FROM {schema}.heard(?::text, ?::text, ?::bigint, ?::integer)

-- :listen_reply  exchange and routing key, with a blank between them
SELECT {schema}.channel('e', ?::text)
