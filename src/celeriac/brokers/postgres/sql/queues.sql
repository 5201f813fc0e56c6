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
CREATE OR REPLACE FUNCTION {schema}.take(
    p_queues text[], p_limit integer, p_owner text, p_claim bigint, p_until float8
) RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_bitmapscan = off AS $$
DECLARE
    v_taken bigint[] := '{}';
    v_queue text;
    v_step smallint;
    v_places tid[];
    v_ids bigint[];
    v_alone boolean[];
    v_suspect integer;
    v_count integer;
    v_first smallint;
BEGIN
    FOREACH v_step IN ARRAY CASE WHEN cardinality(p_queues) = 1 THEN '{-1}'::smallint[] ELSE '{0,3,6,9}' END LOOP
        FOREACH v_queue IN ARRAY p_queues LOOP
            IF v_step < 0 THEN
                SELECT array_agg(place), array_agg(id), array_agg(alone) INTO v_places, v_ids, v_alone FROM (
                    SELECT ctid AS place, id, alone FROM {schema}.ready WHERE queue = v_queue
                    ORDER BY queue, step, position, id LIMIT p_limit FOR UPDATE SKIP LOCKED
                ) AS t;
            ELSE
                SELECT array_agg(place), array_agg(id), array_agg(alone) INTO v_places, v_ids, v_alone FROM (
                    SELECT ctid AS place, id, alone FROM {schema}.ready WHERE queue = v_queue AND step = v_step
                    ORDER BY queue, step, position, id LIMIT p_limit - cardinality(v_taken) FOR UPDATE SKIP LOCKED
                ) AS t;
            END IF;
            CONTINUE WHEN v_ids IS NULL;
            v_suspect := array_position(v_alone, true);
            v_count := cardinality(v_ids);
            IF v_suspect IS NOT NULL THEN
                v_count := CASE WHEN v_suspect = 1 AND cardinality(v_taken) = 0 THEN 1 ELSE v_suspect - 1 END;
            END IF;
            IF v_count > 0 THEN
                DELETE FROM {schema}.ready WHERE ctid = ANY (v_places[1:v_count]);
                v_taken := v_taken || v_ids[1:v_count];
            END IF;
            EXIT WHEN v_suspect IS NOT NULL OR cardinality(v_taken) >= p_limit;
        END LOOP;
        EXIT WHEN v_suspect IS NOT NULL OR cardinality(v_taken) >= p_limit;
    END LOOP;
    INSERT INTO {schema}.lease (claim, id, owner, until) SELECT p_claim, t.id, p_owner, p_until FROM unnest(v_taken) AS t (id);
    RETURN v_taken;
END $$;

-- Takes messages under leases: id, queue and envelope of each, in order; at last a row without envelope: the time, the
-- epoch of the rules, and, when nothing was there, when the next message is due. Who held the doors of p_held leaves
-- them when it got something.
CREATE OR REPLACE FUNCTION {schema}.claim(
    p_queues text[], p_limit integer, p_owner text, p_claim bigint, p_lease float8, p_held text[]
) RETURNS TABLE (id bigint, queue text, envelope bytea, at float8, epoch bigint, due float8)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_now float8 := {schema}.moment();
    v_next float8;
    v_ids bigint[];
BEGIN
    SELECT min(n.due) INTO v_next FROM unnest(p_queues) AS q (name), LATERAL (
        SELECT s.due FROM {schema}.schedule AS s WHERE s.queue = q.name ORDER BY s.queue, s.due, s.id LIMIT 1
    ) AS n;
    IF v_next <= v_now THEN
        PERFORM {schema}.ripen(q.name, v_now, 1000) FROM unnest(p_queues) AS q (name);
        v_next := v_now;
    END IF;
    v_ids := {schema}.take(p_queues, p_limit, p_owner, p_claim, v_now + p_lease);
    IF cardinality(v_ids) > 0 THEN
        RETURN QUERY SELECT m.id, m.queue, m.envelope, NULL::float8, NULL::bigint, NULL::float8
            FROM unnest(v_ids) WITH ORDINALITY AS t (id, n) JOIN {schema}.message AS m ON m.id = t.id ORDER BY t.n;
        IF cardinality(p_held) > 0 THEN
            PERFORM {schema}.leave(p_held);
        END IF;
    END IF;
    RETURN QUERY SELECT 0::bigint, NULL, NULL::bytea, v_now, (SELECT r.epoch FROM {schema}.rule_epoch AS r WHERE r.one = 1), v_next;
END $$;
