-- Messages come in, are due, are claimed. Arrays of one call are as long as each other.

-- Stores messages, ready or scheduled.
CREATE OR REPLACE FUNCTION {schema}.add(p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_now float8 := {schema}.moment();
BEGIN
    WITH fresh AS MATERIALIZED (
        SELECT nextval('{schema}.message_number') AS id, t.queue, t.step, t.due, t.envelope
        FROM unnest(p_queues, p_steps, p_dues, p_envelopes) AS t (queue, step, due, envelope)
    ), stored AS (
        INSERT INTO {schema}.message (id, queue, step, at, envelope) SELECT id, queue, step, v_now, envelope FROM fresh
    ), later AS (
        INSERT INTO {schema}.schedule (queue, due, id, step, alone)
        SELECT queue, due, id, step, false FROM fresh WHERE due > v_now
    )
    INSERT INTO {schema}.ready (queue, step, position, id, alone)
    SELECT queue, step, id, id, false FROM fresh WHERE due IS NULL OR due <= v_now;
END $$;

-- As add, durable when it returns, and whoever waits is woken.
CREATE OR REPLACE PROCEDURE {schema}.publish(
    p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[], p_wakes text[]
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.add(p_queues, p_steps, p_dues, p_envelopes);
    COMMIT;
    PERFORM {schema}.wake(p_wakes);
END $$;

-- Makes due messages of a queue ready, in front, the earliest first; returns how many.
CREATE OR REPLACE FUNCTION {schema}.ripen(p_queue text, p_now float8, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_count integer;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT ctid AS place FROM {schema}.schedule WHERE queue = p_queue AND due <= p_now
        ORDER BY queue, due, id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.schedule AS s USING due WHERE s.ctid = due.place RETURNING s.queue, s.due, s.id, s.step, s.alone
    )
    INSERT INTO {schema}.ready (queue, step, position, id, alone)
    SELECT queue, step, {schema}.ripe(due), id, alone FROM gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Lends up to p_limit messages to an owner: their ids, in order. A suspect is lent alone.
--
-- Rows that are gone and not yet vacuumed are read over each time. When there are many (marks.py) p_marks says where to begin: for
-- each queue and step a position among those that were due, and one among those that came as they are. What was given back to
-- the front is always looked at. The marks that are returned are a little before what was found now, because ids are drawn
-- before their transactions commit.
CREATE OR REPLACE FUNCTION {schema}.take(
    p_queues text[], p_limit integer, p_owner text, p_claim bigint, p_until float8, INOUT p_marks bigint[], OUT p_taken bigint[]
) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_bitmapscan = off AS $$
DECLARE
    v_ends bigint[];
    v_lows bigint[] := '{-9223372036854775808,-72057594037927936,0}';
    v_highs bigint[] := '{-72057594037927937,-1,9223372036854775807}';
    v_low bigint;
    v_mark integer;
    v_queue text;
    v_step smallint;
    v_places tid[];
    v_ids bigint[];
    v_alone boolean[];
    v_first bigint;
    v_suspect integer;
    v_count integer;
BEGIN
    p_taken := '{}';
    IF p_marks IS NOT NULL THEN
        v_ends := ARRAY[NULL, {schema}.ripe({schema}.moment()) - 1000000, coalesce(pg_sequence_last_value('{schema}.message_number'), 0) - 1000];
    END IF;
    <<steps>>
    FOREACH v_step IN ARRAY CASE WHEN cardinality(p_queues) = 1 AND p_marks IS NULL THEN '{-1}'::smallint[] ELSE '{0,3,6,9}' END LOOP
        FOR v_number IN 1 .. cardinality(p_queues) LOOP
            v_queue := p_queues[v_number];
            FOR v_class IN 1 .. CASE WHEN p_marks IS NULL THEN 1 ELSE 3 END LOOP
                IF v_step < 0 THEN
                    SELECT array_agg(place), array_agg(id), array_agg(alone) INTO v_places, v_ids, v_alone FROM (
                        SELECT ctid AS place, id, alone FROM {schema}.ready WHERE queue = v_queue
                        ORDER BY queue, step, position, id LIMIT p_limit FOR UPDATE SKIP LOCKED
                    ) AS t;
                ELSIF p_marks IS NULL THEN
                    SELECT array_agg(place), array_agg(id), array_agg(alone) INTO v_places, v_ids, v_alone FROM (
                        SELECT ctid AS place, id, alone FROM {schema}.ready WHERE queue = v_queue AND step = v_step
                        ORDER BY queue, step, position, id LIMIT p_limit - cardinality(p_taken) FOR UPDATE SKIP LOCKED
                    ) AS t;
                ELSE
                    v_mark := ((v_number - 1) * 4 + v_step / 3) * 2 + v_class - 1;
                    v_low := CASE WHEN v_class = 1 THEN v_lows[1] ELSE greatest(v_lows[v_class], p_marks[v_mark]) END;
                    SELECT array_agg(place), array_agg(id), array_agg(alone), min(position)
                    INTO v_places, v_ids, v_alone, v_first FROM (
                        SELECT ctid AS place, id, alone, position FROM {schema}.ready
                        WHERE queue = v_queue AND step = v_step AND position BETWEEN v_low AND v_highs[v_class]
                        ORDER BY queue, step, position, id LIMIT p_limit - cardinality(p_taken) FOR UPDATE SKIP LOCKED
                    ) AS t;
                    IF v_class > 1 THEN
                        v_first := CASE v_class WHEN 2 THEN v_first - 1000000 ELSE v_first - 1000 END;
                        p_marks[v_mark] := greatest(v_low, least(coalesce(v_first, v_ends[v_class]), v_ends[v_class]));
                    END IF;
                END IF;
                CONTINUE WHEN v_ids IS NULL;
                v_suspect := array_position(v_alone, true);
                v_count := cardinality(v_ids);
                IF v_suspect IS NOT NULL THEN
                    v_count := CASE WHEN v_suspect = 1 AND cardinality(p_taken) = 0 THEN 1 ELSE v_suspect - 1 END;
                END IF;
                IF v_count > 0 THEN
                    DELETE FROM {schema}.ready WHERE ctid = ANY (v_places[1:v_count]);
                    p_taken := p_taken || v_ids[1:v_count];
                END IF;
                EXIT steps WHEN v_suspect IS NOT NULL OR cardinality(p_taken) >= p_limit;
            END LOOP;
        END LOOP;
    END LOOP;
    INSERT INTO {schema}.lease (claim, id, owner, until) SELECT p_claim, t.id, p_owner, p_until FROM unnest(p_taken) AS t (id);
END $$;

-- Takes messages under leases: id, queue and envelope of each, in order; at last a row without envelope: the time, the
-- epoch of the rules, and, when nothing was there, when the next message is due. Who held the doors of p_held leaves
-- them when it got something. p_marks: see take; in the last row are the seconds that it took, and the new marks.
CREATE OR REPLACE FUNCTION {schema}.claim(
    p_queues text[], p_limit integer, p_owner text, p_claim bigint, p_lease float8, p_held text[],
    p_marks bigint[]
) RETURNS TABLE (id bigint, queue text, envelope bytea, at float8, epoch bigint, due float8, took float8, marks bigint[])
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_now float8 := {schema}.moment();
    v_next float8;
    v_took float8;
    v_ids bigint[];
BEGIN
    SELECT min(n.due) INTO v_next FROM unnest(p_queues) AS q (name), LATERAL (
        SELECT s.due FROM {schema}.schedule AS s WHERE s.queue = q.name ORDER BY s.queue, s.due, s.id LIMIT 1
    ) AS n;
    IF v_next <= v_now THEN
        PERFORM {schema}.ripen(q.name, v_now, 1000) FROM unnest(p_queues) AS q (name);
        v_next := v_now;
    END IF;
    v_took := {schema}.moment();
    SELECT t.p_marks, t.p_taken INTO p_marks, v_ids
        FROM {schema}.take(p_queues, p_limit, p_owner, p_claim, v_now + p_lease, p_marks) AS t;
    v_took := {schema}.moment() - v_took;
    IF cardinality(v_ids) > 0 THEN
        RETURN QUERY SELECT m.id, m.queue, m.envelope, NULL::float8, NULL::bigint, NULL::float8, NULL::float8, NULL::bigint[]
            FROM unnest(v_ids) WITH ORDINALITY AS t (id, n) JOIN {schema}.message AS m ON m.id = t.id ORDER BY t.n;
        IF cardinality(p_held) > 0 THEN
            PERFORM {schema}.leave(p_held);
        END IF;
    END IF;
    RETURN QUERY SELECT 0::bigint, NULL, NULL::bytea, v_now, (SELECT r.epoch FROM {schema}.rule_epoch AS r WHERE r.one = 1), v_next,
        v_took, p_marks;
END $$;
