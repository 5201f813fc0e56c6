-- Result records. Arrays of one call are as long as each other; a NULL id says nothing.

-- Writes records; of several for one id the last counts, but what is not terminal never replaces a SUCCESS.
CREATE OR REPLACE FUNCTION {schema}.put(
    p_ids text[], p_bodies bytea[], p_terminal boolean[], p_success boolean[], p_lives float8[]
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_now float8 := {schema}.moment();
BEGIN
    INSERT INTO {schema}.result AS r (id, terminal, success, expires, body)
    SELECT DISTINCT ON (t.id) t.id, t.terminal, t.success, v_now + t.life, t.body
    FROM (
        SELECT *, max(n) FILTER (WHERE terminal) OVER (PARTITION BY u.id) AS last
        FROM unnest(p_ids, p_bodies, p_terminal, p_success, p_lives) WITH ORDINALITY
            AS u (id, body, terminal, success, life, n)
        WHERE u.id IS NOT NULL
    ) AS t
    ORDER BY t.id, coalesce(t.n = t.last AND t.success, false) DESC, t.n DESC
    ON CONFLICT (id) DO UPDATE SET
        terminal = excluded.terminal, success = excluded.success, expires = excluded.expires, body = excluded.body
    WHERE excluded.terminal OR NOT r.success OR r.expires <= v_now;
END $$;

-- As put, durable when it returns, and whoever waits is woken.
CREATE OR REPLACE PROCEDURE {schema}.store(
    p_ids text[], p_bodies bytea[], p_terminal boolean[], p_success boolean[], p_lives float8[]
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.put(p_ids, p_bodies, p_terminal, p_success, p_lives);
    COMMIT;
    PERFORM {schema}.wake_readers(p_ids);
END $$;

-- The records of some ids.
CREATE OR REPLACE FUNCTION {schema}.find(p_ids text[]) RETURNS TABLE (id text, terminal boolean, body bytea)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY SELECT r.id, r.terminal, r.body FROM {schema}.result AS r
        WHERE r.id = ANY (p_ids) AND (r.expires IS NULL OR r.expires > {schema}.moment());
END $$;

-- One of these ids that has a terminal record.
CREATE OR REPLACE FUNCTION {schema}.ended(p_ids text[]) RETURNS text LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT r.id FROM {schema}.result AS r
        WHERE r.id = ANY (p_ids) AND r.terminal AND (r.expires IS NULL OR r.expires > {schema}.moment()) LIMIT 1);
END $$;

-- Says that somebody waits for one of these results, until it is said again or a minute has passed.
CREATE OR REPLACE FUNCTION {schema}.await(p_ids text[], p_channel text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.waiter (id, channel, until) SELECT DISTINCT t.id, p_channel, {schema}.moment() + 60 FROM unnest(p_ids) AS t (id)
    ON CONFLICT (id, channel) DO UPDATE SET until = excluded.until;
    EXECUTE format('LISTEN %I', p_channel);
END $$;

-- Drops up to p_limit expired records; returns how many.
CREATE OR REPLACE FUNCTION {schema}.sweep_results(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_count integer;
BEGIN
    DELETE FROM {schema}.result WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.result WHERE expires <= {schema}.moment() ORDER BY expires LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
