-- How the functions of the schema are called, by name; arguments in their order. Each is one round trip.

-- :version
SELECT number FROM {schema}.version

-- :publish  rows, queues
CALL {schema}.publish(%b::text[], %b::smallint[], %b::float8[], %b::bytea[], %b::text[])

-- :publish_if  rows, changes
CALL {schema}.publish_if(%b::text[], %b::smallint[], %b::float8[], %b::bytea[], %b::text[], %b::bytea[], %b::boolean[], %b::bytea[], %b::float8[], NULL)

-- :publish_in  rows, queues: in the transaction that is open; waiters are told at its commit
SELECT {schema}.add(%b::text[], %b::smallint[], %b::float8[], %b::bytea[]), {schema}.announce(%b::text[])

-- :stage  stage, rows
SELECT {schema}.stage(%s, %b::text[], %b::smallint[], %b::float8[], %b::bytea[])

-- :launch  stage, count
CALL {schema}.launch(%s, %s::integer, NULL)

-- :claim  queues, limit, owner, claim, lease, held doors
SELECT * FROM {schema}.claim(%b::text[], %s::integer, %s, %s::bigint, %s::float8, %b::text[])

-- :mine  owner, claims: what claims whose answer got lost have taken
SELECT l.claim, l.id, m.queue, m.envelope FROM {schema}.lease AS l JOIN {schema}.message AS m ON m.id = l.id
WHERE l.owner = %s AND l.claim = ANY (%b::bigint[]) ORDER BY l.id

-- :owned  owner
SELECT l.claim, l.id, m.queue, m.envelope FROM {schema}.lease AS l JOIN {schema}.message AS m ON m.id = l.id
WHERE l.owner = %s ORDER BY l.id

-- :attend  queues, listening
SELECT {schema}.attend(%b::text[], %s)

-- :leave  queues
SELECT {schema}.leave(%b::text[])

-- :finish  claims, ids, results, rows, locks, queues
CALL {schema}.finish(%b::bigint[], %b::bigint[], %b::text[], %b::bytea[], %b::boolean[], %b::boolean[], %b::float8[], %b::integer[], %b::text[], %b::smallint[], %b::float8[], %b::bytea[], %b::integer[], %b::text[], %b::bytea[], %b::bytea[], %b::text[], NULL)

-- :finish_each  completions, seconds of a token, queues, results
CALL {schema}.finish_each(%s::jsonb, %s::float8, %b::text[], %b::text[], NULL)

-- :extend  claims, ids, lease
SELECT {schema}.extend(%b::bigint[], %b::bigint[], %s::float8)

-- :put  results
CALL {schema}.store(%b::text[], %b::bytea[], %b::boolean[], %b::boolean[], %b::float8[])

-- :get  ids
SELECT * FROM {schema}.find(%b::text[])

-- :ended  ids
SELECT {schema}.ended(%b::text[])

-- :await  ids, channel
SELECT {schema}.await(%b::text[], %s)

-- :await_no_more  channel
DELETE FROM {schema}.waiter WHERE channel = %s

-- :forget  ids
DELETE FROM {schema}.result WHERE id = ANY (%b::text[])

-- :sweep_results  limit
SELECT {schema}.sweep_results(%s::integer)

-- :sweep_chords  limit
SELECT {schema}.sweep_chords(%s::integer)

-- :open_chords  chords, seconds of a token
SELECT {schema}.open_chord(value, %s::float8) FROM jsonb_array_elements(%s::jsonb) ORDER BY value ->> 'id'

-- :join  parts, token, its claim, its id, seconds of a token
SELECT {schema}.join_all(%s::jsonb, %s, %s::bigint, %s::bigint, %s::float8)

-- :renew_chord  chord, token, its claim, its id, seconds of a token
SELECT {schema}.renew_chord(%s, %s, %s::bigint, %s::bigint, %s::float8)

-- :lent_chord  chord, token
SELECT * FROM {schema}.lent_chord(%s, %s)

-- :close_chord  chord, token
SELECT {schema}.close_chord(%s, %s)

-- :grow_chord  chord, by, seconds of a token
SELECT {schema}.grow_chord(%s, %s::integer, %s::float8)

-- :chord_is_due
SELECT {schema}.chord_is_due()

-- :look_at_chords  token, limit, seconds of a token
SELECT {schema}.look_at_chords(%s, %s::integer, %s::float8)

-- :read_ledger  keys
SELECT {schema}.read_ledger(%b::text[])

-- :change_ledger  changes
SELECT {schema}.change_ledger(%b::text[], %b::bytea[], %b::boolean[], %b::bytea[], %b::float8[])

-- :free  locks
SELECT {schema}.free(%b::text[], %b::bytea[], %b::bytea[])

-- :read_rules  after, prefix
SELECT * FROM {schema}.read_rules(%s::bigint, %s)

-- :set_rules  changes, seconds of a tombstone, prefix of those that are limited, how many
SELECT {schema}.set_rules(%b::text[], %b::bytea[], %b::float8[], %s::float8, %s, %s::integer)

-- :search  queues, forms, after, limit
SELECT * FROM {schema}.search(%b::text[], %b::bytea[], %s::bigint, %s::integer)

-- :withdraw  ids, owner, claim, lease
SELECT * FROM {schema}.withdraw(%b::bigint[], %s, %s::bigint, %s::float8)

-- :permit  asks, seconds of a promise, slack, what pauses begin with
CALL {schema}.permit(%b::bigint[], %b::bigint[], %b::text[], %b::float8[], %b::boolean[], %b::text[], %b::integer[], %b::boolean[], %s::float8, %s::float8, %s, NULL, NULL)

-- :freed  seats, those that are forgone, seconds of a promise, what pauses begin with
CALL {schema}.freed(%b::text[], %b::integer[], %b::text[], %b::bigint[], %s::float8, %s)

-- :parks
SELECT * FROM {schema}.parks()

-- :dead_before  key, queue, limit
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw FROM {schema}.dead_before(%s::bigint, %s, %s::integer)

-- :dead  keys
SELECT key, id, task, queue, reason, detail, exception, traceback, worker, at, crashes, raw FROM {schema}.dead WHERE key = ANY (%b::bigint[])

-- :replay  letters, rows, changes
CALL {schema}.replay(%b::bigint[], %b::text[], %b::smallint[], %b::float8[], %b::bytea[], %b::boolean[], %b::text[], %b::bytea[], %b::boolean[], %b::bytea[], %b::float8[], NULL, NULL)

-- :drop_dead  keys
SELECT {schema}.drop_dead(%b::bigint[])

-- :trim_dead  seconds, number, bytes
SELECT {schema}.trim_dead({schema}.moment() - %s::float8, %s::bigint, %s::bigint)

-- :expired  limit
SELECT * FROM {schema}.expired(%s::integer)

-- :restore  claims, ids, envelopes
SELECT {schema}.restore(%b::bigint[], %b::bigint[], %b::bytea[])

-- :ripen_all
SELECT {schema}.ripen_all()

-- :wake  queues
SELECT {schema}.wake(%b::text[])

-- :next_times
SELECT * FROM {schema}.next_times()

-- :drop_stages  seconds
SELECT {schema}.drop_stages({schema}.moment() - %s::float8)

-- :tidy  seconds for which a promise of a seat is remembered
SELECT {schema}.tidy(%s::float8)

-- :depth  queues
SELECT * FROM {schema}.depth(%b::text[])

-- :purge  queue, limit, mark
SELECT * FROM {schema}.purge(%s, %s::integer, %s)

-- :emit  exchange, routing key, headers, payload, whether it is a reply
SELECT {schema}.emit(%s, %s, %s, %s, %s)

-- :hear  exchange, name, whether to listen
SELECT {schema}.hear(%s, %s, %s)

-- :turn_away  exchange, name
SELECT {schema}.turn_away(%s, %s)

-- :heard  exchange, routing key, after, limit
SELECT * FROM {schema}.heard(%s, %s, %s::bigint, %s::integer)

-- :listen_reply  exchange and routing key, with a blank between them
SELECT {schema}.channel('e', %s)
