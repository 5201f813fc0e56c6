-- Limits across workers: paces, seats, and who is parked for one.
--
-- A seat belongs to a lease and ends with it, so nobody has to give it back; or it is kept for a message that was woken.
-- Whoever changes seats of a key or the pace of a bucket holds an advisory lock of it; several are taken in one order.

CREATE OR REPLACE FUNCTION {schema}.lock_limits(p_keys text[], p_buckets text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_gate bigint;
BEGIN
    FOR v_gate IN
        SELECT {schema}.gate('seat', k) FROM unnest(p_keys) AS t (k) WHERE k IS NOT NULL
        UNION SELECT {schema}.gate('pace', b) FROM unnest(p_buckets) AS t (b) WHERE b IS NOT NULL ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(v_gate);
    END LOOP;
END $$;

-- How many seats of a key are free: not held under a lease, and not kept for anybody.
CREATE OR REPLACE FUNCTION {schema}.free_seats(p_key text, p_most integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN p_most - (SELECT count(*) FROM {schema}.seat AS s WHERE s.key = p_key AND CASE
        WHEN s.claim IS NULL THEN s.until > {schema}.moment()
        ELSE EXISTS (SELECT FROM {schema}.lease AS l WHERE l.claim = s.claim AND l.id = s.id) END);
END $$;

-- As many as there are free seats become ready, in front, but those of paused queues; returns their queues.
CREATE OR REPLACE FUNCTION {schema}.wake_parked(p_key text, p_free integer, p_promise float8, p_pause text) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now float8 := {schema}.moment();
    v_front bigint := {schema}.front();
    v_queues text[];
BEGIN
    IF p_free <= 0 OR NOT EXISTS (SELECT FROM {schema}.parked WHERE key = p_key) THEN
        RETURN '{}';
    END IF;
    WITH first AS MATERIALIZED (
        SELECT k.ctid AS place FROM {schema}.parked AS k WHERE k.key = p_key AND NOT EXISTS (
            SELECT FROM {schema}.rule AS r WHERE r.key = p_pause || k.queue AND r.value IS NOT NULL
                AND (r.expires IS NULL OR r.expires > v_now)
        ) ORDER BY k.key, k.position, k.id LIMIT p_free FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.parked AS k USING first WHERE k.ctid = first.place RETURNING k.position, k.id, k.queue, k.step, k.alone
    ), kept AS (
        INSERT INTO {schema}.seat (key, id, claim, until) SELECT p_key, id, NULL, v_now + p_promise FROM gone
        ON CONFLICT (key, id) DO UPDATE SET claim = NULL, until = excluded.until
    ), woken AS (
        INSERT INTO {schema}.ready (queue, step, position, id, alone)
        SELECT queue, step, v_front + row_number() OVER (ORDER BY position, id), id, alone FROM gone RETURNING queue
    )
    SELECT array_agg(queue) INTO v_queues FROM woken;
    RETURN coalesce(v_queues, '{}');
END $$;

-- Takes its place in the line of a bucket: NULL when it may start now, else when (model/limits.py, Pace.take).
CREATE OR REPLACE FUNCTION {schema}.take_pace(p_bucket text, p_interval float8, p_reserved boolean, p_slack float8) RETURNS float8
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    p {schema}.pace;
    v_now float8 := {schema}.moment();
    v_due float8;
BEGIN
    SELECT * INTO p FROM {schema}.pace WHERE bucket = p_bucket;
    p.start := coalesce(p.start, 0);
    p.line := coalesce(p.line, 0);
    IF p.start <= v_now + p_slack AND (p_reserved OR p.line <= v_now + p_slack) THEN
        p.start := greatest(p.start, v_now) + p_interval;
    ELSE
        v_due := greatest(p.line, p.start, v_now);
        p.line := v_due + p_interval;
    END IF;
    INSERT INTO {schema}.pace (bucket, start, line) VALUES (p_bucket, p.start, p.line)
    ON CONFLICT (bucket) DO UPDATE SET start = excluded.start, line = excluded.line;
    RETURN v_due;
END $$;

-- It waits, and its lease ends: behind all, or in front when a seat was kept for it.
CREATE OR REPLACE FUNCTION {schema}.park(p_key text, p_most integer, p_claim bigint, p_id bigint, p_alone boolean) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_position bigint;
BEGIN
    DELETE FROM {schema}.seat WHERE key = p_key AND id = p_id AND claim IS NULL;
    IF FOUND THEN
        SELECT least(min(position), 0) - 1 INTO v_position FROM (
            SELECT position FROM {schema}.parked WHERE key = p_key ORDER BY key, position, id LIMIT 1) AS t;
    ELSE
        SELECT greatest(max(position), 0) + 1 INTO v_position FROM (
            SELECT position FROM {schema}.parked WHERE key = p_key ORDER BY key DESC, position DESC, id DESC LIMIT 1) AS t;
    END IF;
    DELETE FROM {schema}.seat WHERE key = p_key AND id = p_id;
    INSERT INTO {schema}.parked (key, position, id, queue, step, alone, most)
        SELECT p_key, v_position, id, queue, step, p_alone, p_most FROM {schema}.message WHERE id = p_id;
    DELETE FROM {schema}.lease WHERE claim = p_claim AND id = p_id;
END $$;

-- Whether these deliveries may start, judged in order; a NULL bucket or key is no limit. For each "go", "lost",
-- "parked", or "later" and when; p_woken are queues in which somebody was woken.
CREATE OR REPLACE FUNCTION {schema}.judge(
    p_claims bigint[], p_ids bigint[], p_buckets text[], p_intervals float8[], p_reserved boolean[],
    p_keys text[], p_most integer[], p_alone boolean[], p_promise float8, p_slack float8, p_pause text,
    OUT p_permits text[], OUT p_dues float8[], OUT p_woken text[]
) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_names text[] := '{}';     -- the keys of this call, how many seats there are of each, and how many are free
    v_seats integer[] := '{}';
    v_free integer[] := '{}';
    v_at integer;
    v_one text[];
    v_due float8;
    s {schema}.seat;
BEGIN
    p_permits := '{}'; p_dues := '{}'; p_woken := '{}';
    PERFORM {schema}.lock_limits(p_keys, p_buckets);
    FOR i IN 1 .. cardinality(p_ids) LOOP
        p_dues := p_dues || NULL::float8;
        PERFORM FROM {schema}.lease WHERE claim = p_claims[i] AND id = p_ids[i] FOR UPDATE;
        IF NOT FOUND THEN
            p_permits := p_permits || 'lost'::text;
            CONTINUE;
        END IF;
        IF p_keys[i] IS NOT NULL THEN
            v_at := array_position(v_names, p_keys[i]);
            IF v_at IS NULL THEN
                v_names := v_names || p_keys[i];
                v_seats := v_seats || p_most[i];
                v_free := v_free || {schema}.free_seats(p_keys[i], p_most[i]);
                v_at := cardinality(v_names);
            END IF;
            SELECT * INTO s FROM {schema}.seat WHERE key = p_keys[i] AND id = p_ids[i];
            IF s.claim = p_claims[i] THEN
                p_permits := p_permits || 'go'::text;    -- once more: it may run already
                CONTINUE;
            END IF;
            IF NOT coalesce(s.claim IS NULL AND s.until > {schema}.moment(), false) THEN
                v_one := {schema}.wake_parked(p_keys[i], v_free[v_at], p_promise, p_pause);
                v_free[v_at] := v_free[v_at] - cardinality(v_one);
                p_woken := p_woken || v_one;
                IF v_free[v_at] <= 0 THEN
                    PERFORM {schema}.park(p_keys[i], p_most[i], p_claims[i], p_ids[i], p_alone[i]);
                    p_permits := p_permits || 'parked'::text;
                    CONTINUE;
                END IF;
                v_free[v_at] := v_free[v_at] - 1;
            END IF;
        END IF;
        v_due := NULL;
        IF p_buckets[i] IS NOT NULL THEN
            v_due := {schema}.take_pace(p_buckets[i], p_intervals[i], p_reserved[i], p_slack);
        END IF;
        IF p_keys[i] IS NOT NULL AND v_due IS NULL THEN
            INSERT INTO {schema}.seat (key, id, claim, until) VALUES (p_keys[i], p_ids[i], p_claims[i], 0)
            ON CONFLICT (key, id) DO UPDATE SET claim = excluded.claim, until = 0;
        ELSIF p_keys[i] IS NOT NULL THEN
            DELETE FROM {schema}.seat WHERE key = p_keys[i] AND id = p_ids[i];
            v_free[v_at] := v_free[v_at] + 1;
        END IF;
        p_permits := p_permits || CASE WHEN v_due IS NULL THEN 'go'::text ELSE 'later' END;
        p_dues[i] := v_due;
    END LOOP;
    -- Promises may have been given up.
    FOR i IN 1 .. cardinality(v_names) LOOP
        p_woken := p_woken || {schema}.wake_parked(v_names[i], {schema}.free_seats(v_names[i], v_seats[i]), p_promise, p_pause);
    END LOOP;
END $$;

-- As judge; whoever waits for messages of those woken is woken too.
CREATE OR REPLACE PROCEDURE {schema}.permit(
    p_claims bigint[], p_ids bigint[], p_buckets text[], p_intervals float8[], p_reserved boolean[],
    p_keys text[], p_most integer[], p_alone boolean[], p_promise float8, p_slack float8, p_pause text,
    INOUT p_permits text[], INOUT p_dues float8[]
) LANGUAGE plpgsql AS $$
DECLARE v_woken text[];
BEGIN
    SELECT j.p_permits, j.p_dues, j.p_woken INTO p_permits, p_dues, v_woken
    FROM {schema}.judge(p_claims, p_ids, p_buckets, p_intervals, p_reserved, p_keys, p_most, p_alone, p_promise, p_slack, p_pause) AS j;
    COMMIT;
    PERFORM {schema}.wake(v_woken);
END $$;

-- Wakes those parked for whom there is a seat, also where those of p_gone_ids do not want theirs.
CREATE OR REPLACE PROCEDURE {schema}.freed(
    p_keys text[], p_most integer[], p_gone_keys text[], p_gone_ids bigint[], p_promise float8, p_pause text
) LANGUAGE plpgsql AS $$
DECLARE v_woken text[] := '{}';
BEGIN
    IF cardinality(p_gone_ids) = 0 AND NOT EXISTS (SELECT FROM {schema}.parked WHERE key = ANY (p_keys)) THEN
        RETURN;
    END IF;
    PERFORM {schema}.lock_limits(p_keys || p_gone_keys, '{}');
    UPDATE {schema}.seat AS s SET until = least(s.until, {schema}.moment())
        FROM unnest(p_gone_keys, p_gone_ids) AS t (key, id) WHERE s.key = t.key AND s.id = t.id AND s.claim IS NULL;
    FOR i IN 1 .. cardinality(p_keys) LOOP
        v_woken := v_woken || {schema}.wake_parked(p_keys[i], {schema}.free_seats(p_keys[i], p_most[i]), p_promise, p_pause);
    END LOOP;
    COMMIT;
    PERFORM {schema}.wake(v_woken);
END $$;

-- Each key that somebody waits for, and how many seats there are.
CREATE OR REPLACE FUNCTION {schema}.parks() RETURNS TABLE (key text, most integer) LANGUAGE sql AS $$
    SELECT k.key::text, max(k.most) FROM {schema}.parked AS k GROUP BY k.key
$$;
