-- Deliveries end. Most are accepted, many at a time: `finish`. Everything else goes one by one: `finish_each`.

-- Settles what is accepted, with its result and its follow-ups, each only when its token is held; no token twice.
-- Results stand at the place of their delivery (NULL: none), p_row_of and p_lock_of name the delivery by its number from 1.
-- Returns for each delivery whether it was done.
CREATE OR REPLACE FUNCTION {schema}.accept(
    p_claims bigint[], p_ids bigint[],
    p_results text[], p_bodies bytea[], p_terminal boolean[], p_success boolean[], p_lives float8[],
    p_row_of integer[], p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[],
    p_lock_of integer[], p_keys text[], p_waiting bytea[], p_started bytea[]
) RETURNS boolean[] LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_held bigint[];
    v_done boolean[];
BEGIN
    WITH gone AS (
        DELETE FROM {schema}.lease AS l USING unnest(p_claims, p_ids) AS t (claim, id)
        WHERE l.claim = t.claim AND l.id = t.id RETURNING l.id
    )
    SELECT array_agg(id) INTO v_held FROM gone;
    IF v_held IS NULL THEN
        RETURN array_fill(false, ARRAY[cardinality(p_ids)]);
    END IF;
    DELETE FROM {schema}.message WHERE id = ANY (v_held);
    IF cardinality(v_held) = cardinality(p_ids) THEN
        v_done := array_fill(true, ARRAY[cardinality(p_ids)]);
        IF cardinality(p_results) > 0 THEN
            PERFORM {schema}.put(p_results, p_bodies, p_terminal, p_success, p_lives);
        END IF;
        IF cardinality(p_queues) > 0 THEN
            PERFORM {schema}.add(p_queues, p_steps, p_dues, p_envelopes);
        END IF;
        IF cardinality(p_keys) > 0 THEN
            PERFORM {schema}.free(p_keys, p_waiting, p_started);
        END IF;
        RETURN v_done;
    END IF;
    SELECT array_agg(t.id = ANY (v_held) ORDER BY n) INTO v_done FROM unnest(p_ids) WITH ORDINALITY AS t (id, n);
    IF cardinality(p_results) > 0 THEN
        PERFORM {schema}.put(array_agg(CASE WHEN v_done[n] THEN t.id END), array_agg(t.body), array_agg(t.terminal),
                             array_agg(t.success), array_agg(t.life))
        FROM unnest(p_results, p_bodies, p_terminal, p_success, p_lives) WITH ORDINALITY
            AS t (id, body, terminal, success, life, n);
    END IF;
    IF cardinality(p_queues) > 0 THEN
        PERFORM {schema}.add(array_agg(t.queue), array_agg(t.step), array_agg(t.due), array_agg(t.envelope))
        FROM unnest(p_row_of, p_queues, p_steps, p_dues, p_envelopes) AS t (of, queue, step, due, envelope)
        WHERE v_done[t.of] HAVING count(*) > 0;
    END IF;
    IF cardinality(p_keys) > 0 THEN
        PERFORM {schema}.free(array_agg(t.key), array_agg(t.waiting), array_agg(t.started))
        FROM unnest(p_lock_of, p_keys, p_waiting, p_started) AS t (of, key, waiting, started)
        WHERE v_done[t.of] HAVING count(*) > 0;
    END IF;
    RETURN v_done;
END $$;

-- As accept, durable when it returns, and whoever waits is woken.
CREATE OR REPLACE PROCEDURE {schema}.finish(
    p_claims bigint[], p_ids bigint[],
    p_results text[], p_bodies bytea[], p_terminal boolean[], p_success boolean[], p_lives float8[],
    p_row_of integer[], p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[],
    p_lock_of integer[], p_keys text[], p_waiting bytea[], p_started bytea[],
    p_wakes text[], INOUT p_done boolean[]
) LANGUAGE plpgsql AS $$
BEGIN
    p_done := {schema}.accept(p_claims, p_ids, p_results, p_bodies, p_terminal, p_success, p_lives,
        p_row_of, p_queues, p_steps, p_dues, p_envelopes, p_lock_of, p_keys, p_waiting, p_started);
    COMMIT;
    PERFORM {schema}.wake(p_wakes);
    PERFORM {schema}.wake_readers(p_results);
END $$;

-- Ends one delivery whose lease is held. p_end: {kind} "accept", "release" with due, back, alone, envelope (NULL: as it
-- is), or "dead" with the texts of the letter. p_front: the position if it goes to the front.
CREATE OR REPLACE FUNCTION {schema}.end_one(p_claim bigint, p_id bigint, p_end jsonb, p_front bigint) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_kind text := p_end ->> 'kind';
    v_alone boolean := coalesce((p_end ->> 'alone')::boolean, false);
    v_due float8 := (p_end ->> 'due')::float8;
    v_new bigint;
    m {schema}.message;
BEGIN
    DELETE FROM {schema}.lease WHERE claim = p_claim AND id = p_id;
    IF v_kind = 'accept' THEN
        DELETE FROM {schema}.message WHERE id = p_id;
    ELSIF v_kind = 'dead' THEN
        DELETE FROM {schema}.message WHERE id = p_id RETURNING * INTO m;
        INSERT INTO {schema}.dead (id, task, queue, reason, detail, exception, worker, at, crashes, traceback, size, raw)
        VALUES (p_end ->> 'id', p_end ->> 'task', p_end ->> 'queue', p_end ->> 'reason', p_end ->> 'detail',
                p_end ->> 'exception', p_end ->> 'worker', (p_end ->> 'at')::float8, (p_end ->> 'crashes')::integer,
                p_end ->> 'traceback', length(m.envelope) + octet_length(p_end ->> 'traceback'), m.envelope);
    ELSE
        IF p_end ->> 'envelope' IS NOT NULL THEN
            UPDATE {schema}.message SET envelope = decode(p_end ->> 'envelope', 'base64') WHERE id = p_id;
        END IF;
        SELECT id, queue, step INTO m.id, m.queue, m.step FROM {schema}.message WHERE id = p_id;
        IF v_due > {schema}.moment() THEN
            INSERT INTO {schema}.schedule (queue, due, id, step, alone) VALUES (m.queue, v_due, p_id, m.step, v_alone);
        ELSIF (p_end ->> 'back')::boolean THEN
            v_new := nextval('{schema}.message_number');
            UPDATE {schema}.message SET id = v_new WHERE id = p_id;
            INSERT INTO {schema}.ready (queue, step, position, id, alone) VALUES (m.queue, m.step, v_new, v_new, v_alone);
        ELSE
            INSERT INTO {schema}.ready (queue, step, position, id, alone) VALUES (m.queue, m.step, p_front, p_id, v_alone);
        END IF;
    END IF;
END $$;

-- Writes completions of any kind, in order, and ends their deliveries: for each "done", "completes" or "fenced". One is
--   {claim, id, token   of its delivery, NULL: none,
--    end                see end_one, NULL: it stays leased,
--    rows               [{queue, step, due, envelope}],
--    results            [{id, body, terminal, success, life}],
--    frees              [{key, waiting, started}],
--    opens, parts       see chords.sql,
--    closes             {chord, token}}
-- with bytes as base64; what there is none of may be missing. p_wait: how long the token of a chord is held.
CREATE OR REPLACE FUNCTION {schema}.conclude(p_batch jsonb, p_wait float8) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
-- Whatever can be asked or done for all of a batch at once is: a chord of thousands joins by hundreds.
DECLARE
    v_items jsonb[];                    -- the batch
    v_held boolean[];                   -- whether its delivery is leased, before the call
    v_doubtful integer[];               -- may have been written before, for the answer was lost
    v_verdicts text[] := '{}';
    v_along jsonb[] := '{}';            -- those not fenced, and of them those not written before
    v_fresh jsonb[] := '{}';
    v_ended bigint[] := '{}';           -- messages whose end stands in front of those to come
    v_claims bigint[] := '{}';          -- accepted deliveries that are still to be dropped
    v_ids bigint[] := '{}';
    v_joining integer[] := '{}';
    v_last integer[];                   -- the last one that joins a chord, in order, and which chord
    v_chords text[];
    v_at integer := 1;
    v_pending jsonb[] := '{}';          -- parts that are not yet joined
    v_anew text[] := '{}';              -- chords that this call opens or closes
    v_front bigint := {schema}.front();
    v_number integer := 0;
    v_id bigint;
    v_taken boolean;
    v_repeats boolean;
    v_chord text;
    c jsonb;
    p jsonb;
BEGIN
    PERFORM {schema}.lock_chords(p_batch);
    SELECT array_agg(value ORDER BY n) INTO v_items FROM jsonb_array_elements(p_batch) WITH ORDINALITY AS t (value, n);
    v_held := {schema}.held(v_items);
    SELECT array_agg(DISTINCT t.n) INTO v_doubtful
        FROM unnest(v_items) WITH ORDINALITY AS t (item, n), jsonb_array_elements(t.item -> 'parts') AS m (part)
        JOIN {schema}.chord AS h ON h.id = m.part ->> 'chord' AND NOT h.done AND h.token IS NOT NULL
        WHERE t.item ->> 'token' = h.token AND t.item ? 'end' AND NOT t.item ? 'closes';
    FOREACH c IN ARRAY coalesce(v_items, '{}') LOOP
        v_number := v_number + 1;
        v_id := (c ->> 'id')::bigint;
        IF v_id IS NOT NULL AND (NOT v_held[v_number] OR v_id = ANY (v_ended)) THEN
            v_verdicts := v_verdicts || 'fenced'::text;
            CONTINUE;
        END IF;
        IF c ? 'closes' OR c ? 'opens' THEN
            PERFORM {schema}.join_pending(v_pending, p_wait);
            v_pending := '{}';
        END IF;
        IF c ? 'closes' AND NOT {schema}.holds(c #>> '{closes,chord}', c #>> '{closes,token}') THEN
            v_verdicts := v_verdicts || 'fenced'::text;
            CONTINUE;
        END IF;
        v_repeats := false;
        IF v_id IS NOT NULL AND v_number = ANY (v_doubtful) THEN
            v_repeats := EXISTS (
                SELECT FROM {schema}.chord AS h, jsonb_array_elements(c -> 'parts') AS t
                WHERE h.id = t.value ->> 'chord' AND h.token = c ->> 'token' AND NOT h.done AND NOT h.id = ANY (v_anew));
        END IF;
        v_verdicts := v_verdicts || 'done'::text;
        v_along := v_along || c;
        IF NOT v_repeats THEN
            v_fresh := v_fresh || c;
            FOR p IN SELECT value FROM jsonb_array_elements(c -> 'opens') LOOP
                PERFORM {schema}.open_chord(p, p_wait);
                v_anew := v_anew || (p ->> 'id');
            END LOOP;
        END IF;
        IF c ? 'parts' THEN
            v_pending := v_pending || (c -> 'parts');
        END IF;
        IF c ? 'closes' THEN
            v_chord := c #>> '{closes,chord}';
            v_anew := v_anew || v_chord;
            PERFORM {schema}.close_chord(v_chord, c #>> '{closes,token}');
        END IF;
        IF c ? 'end' THEN
            v_ended := v_ended || v_id;
        END IF;
        IF c ? 'parts' AND v_id IS NOT NULL THEN
            v_joining := v_joining || v_number;
        ELSIF c #>> '{end,kind}' = 'accept' THEN
            v_claims := v_claims || (c ->> 'claim')::bigint;
            v_ids := v_ids || v_id;
        ELSIF c ? 'end' THEN
            PERFORM {schema}.end_one((c ->> 'claim')::bigint, v_id, c -> 'end', v_front + v_number);
        END IF;
    END LOOP;
    PERFORM {schema}.join_pending(v_pending, p_wait);
    SELECT array_agg(n ORDER BY n, chord), array_agg(chord ORDER BY n, chord) INTO v_last, v_chords FROM (
        SELECT max(t.n), m.part ->> 'chord'
        FROM unnest(v_joining) AS t (n), jsonb_array_elements(v_items[t.n] -> 'parts') AS m (part) GROUP BY 2
    ) AS t (n, chord);
    FOREACH v_number IN ARRAY v_joining LOOP
        c := v_items[v_number];
        v_taken := false;
        IF v_last[v_at] = v_number THEN
            -- A token of a delivery that has ended is nobody's.
            PERFORM {schema}.drop_accepted(v_claims, v_ids);
            v_claims := '{}';
            v_ids := '{}';
        END IF;
        WHILE v_last[v_at] = v_number LOOP
            v_taken := {schema}.take_chord(
                v_chords[v_at], c ->> 'token', (c ->> 'claim')::bigint, (c ->> 'id')::bigint, p_wait) OR v_taken;
            v_at := v_at + 1;
        END LOOP;
        IF v_taken THEN
            v_verdicts[v_number] := 'completes';
        ELSIF c #>> '{end,kind}' = 'accept' THEN
            v_claims := v_claims || (c ->> 'claim')::bigint;
            v_ids := v_ids || (c ->> 'id')::bigint;
        ELSIF c ? 'end' THEN
            PERFORM {schema}.end_one((c ->> 'claim')::bigint, (c ->> 'id')::bigint, c -> 'end', v_front + v_number);
        END IF;
    END LOOP;
    PERFORM {schema}.drop_accepted(v_claims, v_ids);
    PERFORM {schema}.write_along(v_fresh, v_along);
    RETURN v_verdicts;
END $$;

-- For each completion whether its delivery is leased; the leases are locked, in an order that all callers keep.
CREATE OR REPLACE FUNCTION {schema}.held(p_items jsonb[]) RETURNS boolean[] LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_claims bigint[];
    v_ids bigint[];
    v_locked text[];
BEGIN
    SELECT array_agg((item ->> 'claim')::bigint ORDER BY n), array_agg((item ->> 'id')::bigint ORDER BY n) INTO v_claims, v_ids
        FROM unnest(p_items) WITH ORDINALITY AS t (item, n);
    WITH locked AS MATERIALIZED (
        SELECT l.claim, l.id FROM {schema}.lease AS l
        JOIN (SELECT DISTINCT claim, id FROM unnest(v_claims, v_ids) AS u (claim, id)) AS t ON l.claim = t.claim AND l.id = t.id
        ORDER BY l.claim, l.id FOR UPDATE OF l
    )
    SELECT coalesce(array_agg(claim || ':' || id), '{}') INTO v_locked FROM locked;
    IF cardinality(v_locked) = cardinality(p_items) THEN
        RETURN array_fill(true, ARRAY[cardinality(p_items)]);
    END IF;
    RETURN (SELECT array_agg(coalesce(claim || ':' || id = ANY (v_locked), false) ORDER BY n)
        FROM unnest(v_claims, v_ids) WITH ORDINALITY AS t (claim, id, n));
END $$;

-- Drops deliveries and their messages.
CREATE OR REPLACE FUNCTION {schema}.drop_accepted(p_claims bigint[], p_ids bigint[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        DELETE FROM {schema}.lease AS l USING unnest(p_claims, p_ids) AS t (claim, id) WHERE l.claim = t.claim AND l.id = t.id;
        DELETE FROM {schema}.message WHERE id = ANY (p_ids);
    END IF;
END $$;

-- What goes with completions: messages and results of p_fresh, locks of p_along.
CREATE OR REPLACE FUNCTION {schema}.write_along(p_fresh jsonb[], p_along jsonb[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM {schema}.add(array_agg(r.queue), array_agg(r.step), array_agg(r.due), array_agg(decode(r.envelope, 'base64')))
    FROM unnest(p_fresh) AS c (value),
        jsonb_to_recordset(c.value -> 'rows') AS r (queue text, step smallint, due float8, envelope text)
    WHERE c.value ? 'rows' HAVING count(*) > 0;
    PERFORM {schema}.put(array_agg(r.id), array_agg(decode(r.body, 'base64')), array_agg(r.terminal),
                         array_agg(r.success), array_agg(r.life))
    FROM unnest(p_fresh) AS c (value),
        jsonb_to_recordset(c.value -> 'results') AS r (id text, body text, terminal boolean, success boolean, life float8)
    WHERE c.value ? 'results' HAVING count(*) > 0;
    PERFORM {schema}.free(array_agg(r.key), array_agg(decode(r.waiting, 'base64')), array_agg(decode(r.started, 'base64')))
    FROM unnest(p_along) AS c (value),
        jsonb_to_recordset(c.value -> 'frees') AS r (key text, waiting text, started text)
    WHERE c.value ? 'frees' HAVING count(*) > 0;
END $$;

-- As conclude, durable when it returns, and whoever waits is woken.
CREATE OR REPLACE PROCEDURE {schema}.finish_each(
    p_batch jsonb, p_wait float8, p_wakes text[], p_results text[], INOUT p_verdicts text[]
) LANGUAGE plpgsql AS $$
BEGIN
    p_verdicts := {schema}.conclude(p_batch, p_wait);
    COMMIT;
    PERFORM {schema}.wake(p_wakes);
    PERFORM {schema}.wake_readers(p_results);
END $$;

-- Renews leases; returns, for each, whether it is held.
CREATE OR REPLACE FUNCTION {schema}.extend(p_claims bigint[], p_ids bigint[], p_lease float8) RETURNS boolean[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_until float8 := {schema}.moment() + p_lease;
    v_held bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT l.ctid AS place, l.id, l.claim FROM {schema}.lease AS l
        JOIN (SELECT DISTINCT claim, id FROM unnest(p_claims, p_ids) AS t (claim, id)) AS t ON l.claim = t.claim AND l.id = t.id
        ORDER BY l.claim, l.id FOR UPDATE OF l
    ), renewed AS (
        UPDATE {schema}.lease AS l SET until = v_until FROM wanted WHERE l.ctid = wanted.place RETURNING l.id
    )
    SELECT array_agg(id) INTO v_held FROM renewed;
    RETURN (SELECT array_agg(coalesce(t.id = ANY (v_held), false) ORDER BY n) FROM unnest(p_ids) WITH ORDINALITY AS t (id, n));
END $$;
