-- What a schema needs now and then. Any number of maintainers may do it at once.

-- Expired leases, locked; with how many leases their owners hold.
CREATE OR REPLACE FUNCTION {schema}.expired(p_limit integer)
RETURNS TABLE (claim bigint, id bigint, queue text, envelope bytea, held bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH over AS MATERIALIZED (
            SELECT l.claim, l.id, l.owner FROM {schema}.lease AS l WHERE l.until <= {schema}.moment()
            ORDER BY l.id LIMIT p_limit FOR UPDATE SKIP LOCKED
        ), owners AS MATERIALIZED (
            SELECT l.owner, count(*) AS held FROM {schema}.lease AS l
            WHERE l.owner IN (SELECT o.owner FROM over AS o) GROUP BY l.owner
        )
        SELECT o.claim, o.id, m.queue::text, m.envelope, w.held
        FROM over AS o JOIN {schema}.message AS m ON m.id = o.id JOIN owners AS w ON w.owner = o.owner ORDER BY o.id;
END $$;

-- Puts these back to the front, with new texts, as suspects.
CREATE OR REPLACE FUNCTION {schema}.restore(p_claims bigint[], p_ids bigint[], p_envelopes bytea[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_front bigint := {schema}.front();
BEGIN
    UPDATE {schema}.message AS m SET envelope = t.envelope
        FROM unnest(p_ids, p_envelopes) AS t (id, envelope) WHERE m.id = t.id;
    DELETE FROM {schema}.lease AS l USING unnest(p_claims, p_ids) AS t (claim, id) WHERE l.claim = t.claim AND l.id = t.id;
    INSERT INTO {schema}.ready (queue, step, position, id, alone)
        SELECT m.queue, m.step, v_front + t.n, m.id, true
        FROM unnest(p_ids) WITH ORDINALITY AS t (id, n) JOIN {schema}.message AS m ON m.id = t.id;
END $$;

-- Makes due messages ready, up to a thousand of each queue; the queues that got some.
CREATE OR REPLACE FUNCTION {schema}.ripen_all() RETURNS SETOF text LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_queue text;
    v_now float8 := {schema}.moment();
BEGIN
    FOR v_queue IN SELECT n.queue FROM {schema}.next_dues() AS n WHERE n.due <= v_now LOOP
        IF {schema}.ripen(v_queue, v_now, 1000) > 0 THEN
            RETURN NEXT v_queue;
        END IF;
    END LOOP;
END $$;

-- When the next message of each queue is due; jumps from queue to queue instead of reading the whole schedule.
CREATE OR REPLACE FUNCTION {schema}.next_dues() RETURNS TABLE (queue text, due float8)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH RECURSIVE name (queue) AS (
            SELECT min(s.queue) FROM {schema}.schedule AS s
            UNION ALL
            SELECT (SELECT min(s.queue) FROM {schema}.schedule AS s WHERE s.queue > n.queue) FROM name AS n WHERE n.queue IS NOT NULL
        )
        SELECT n.queue::text, (SELECT min(s.due) FROM {schema}.schedule AS s WHERE s.queue = n.queue)
        FROM name AS n WHERE n.queue IS NOT NULL;
END $$;

-- Seconds until the next message is due, and until the next lease ends.
CREATE OR REPLACE FUNCTION {schema}.next_times() RETURNS TABLE (due float8, expiry float8) LANGUAGE sql AS $$
    SELECT (SELECT min(n.due) FROM {schema}.next_dues() AS n) - {schema}.moment(),
           (SELECT min(l.until) FROM {schema}.lease AS l) - {schema}.moment()
$$;

-- Drops what nobody needs any more: paces, seats, ledger, bus, ears, waiters.
CREATE OR REPLACE FUNCTION {schema}.tidy(p_seat_memory float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_now float8 := {schema}.moment();
BEGIN
    IF NOT pg_try_advisory_xact_lock({schema}.gate('tidy', '')) THEN
        RETURN;
    END IF;
    DELETE FROM {schema}.pace WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.pace WHERE start <= v_now AND line <= v_now FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.seat AS s WHERE claim IS NULL AND until <= v_now - p_seat_memory;
    -- Of the claim that was seen: a row that was given to another meanwhile is looked at again, but its lease is not.
    WITH over AS MATERIALIZED (
        SELECT s.key, s.id, s.claim FROM {schema}.seat AS s WHERE s.claim IS NOT NULL
            AND NOT EXISTS (SELECT FROM {schema}.lease AS l WHERE l.claim = s.claim AND l.id = s.id)
    )
    DELETE FROM {schema}.seat AS s USING over AS o WHERE s.key = o.key AND s.id = o.id AND s.claim = o.claim;
    DELETE FROM {schema}.ledger WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.ledger WHERE expires <= v_now ORDER BY expires LIMIT 2000 FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.bus WHERE expires <= v_now;
    DELETE FROM {schema}.ear WHERE until <= v_now;
    DELETE FROM {schema}.waiter WHERE until <= v_now;
END $$;

-- How full a queue is.
CREATE OR REPLACE FUNCTION {schema}.depth(p_queues text[])
RETURNS TABLE (queue text, ready bigint, scheduled bigint, leased bigint, dead bigint, oldest float8)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT q.name,
        (SELECT count(*) FROM {schema}.ready AS t WHERE t.queue = q.name),
        (SELECT count(*) FROM {schema}.schedule AS t WHERE t.queue = q.name)
            + (SELECT count(*) FROM {schema}.parked AS t WHERE t.queue = q.name),
        (SELECT count(*) FROM {schema}.lease AS t JOIN {schema}.message AS m ON m.id = t.id WHERE m.queue = q.name),
        (SELECT count(*) FROM {schema}.dead AS t WHERE t.queue = q.name),
        (SELECT CASE WHEN min(m.at) IS NOT NULL THEN greatest(0, {schema}.moment() - min(m.at)) END FROM {schema}.message AS m WHERE m.id IN (
            SELECT (SELECT r.id FROM {schema}.ready AS r WHERE r.queue = q.name AND r.step = s.step
                    ORDER BY r.queue, r.step, r.position, r.id LIMIT 1)
            FROM (VALUES (0::smallint), (3), (6), (9)) AS s (step)))
    FROM unnest(p_queues) AS q (name);
END $$;

-- Drops up to p_limit parked, ready or scheduled messages: their number, and the texts of those that contain p_mark.
CREATE OR REPLACE FUNCTION {schema}.purge(p_queue text, p_limit integer, p_mark bytea)
RETURNS TABLE (count integer, marked bytea[]) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_ids bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM {schema}.parked WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.parked WHERE queue = p_queue LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING id
    ) SELECT array_agg(id) INTO v_ids FROM gone;
    IF v_ids IS NULL THEN
        WITH gone AS (
            DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM {schema}.ready WHERE queue = p_queue LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING id
        ) SELECT array_agg(id) INTO v_ids FROM gone;
    END IF;
    IF v_ids IS NULL THEN
        WITH gone AS (
            DELETE FROM {schema}.schedule WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM {schema}.schedule WHERE queue = p_queue LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING id
        ) SELECT array_agg(id) INTO v_ids FROM gone;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.message WHERE id = ANY (v_ids) RETURNING envelope
    )
    SELECT array_agg(envelope) INTO marked FROM gone WHERE position(p_mark IN envelope) > 0;
    count := coalesce(cardinality(v_ids), 0);
    RETURN NEXT;
END $$;
