-- The ledger: small values under keys, changed by compare-and-set. Arrays of one call are as long as each other.

-- What stands under each key.
CREATE OR REPLACE FUNCTION {schema}.read_ledger(p_keys text[]) RETURNS bytea[] LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT array_agg(l.value ORDER BY n) FROM unnest(p_keys) WITH ORDINALITY AS t (key, n)
        LEFT JOIN {schema}.ledger AS l ON l.key = t.key AND (l.expires IS NULL OR l.expires > {schema}.moment()));
END $$;

-- Makes one change when the key holds what is expected (NULL: nothing), or p_any; returns whether it did.
CREATE OR REPLACE FUNCTION {schema}.change_one(p_key text, p_value bytea, p_any boolean, p_expected bytea, p_life float8)
RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_now float8 := {schema}.moment();
BEGIN
    IF p_value IS NULL AND p_expected IS NULL AND NOT p_any THEN
        RETURN NOT EXISTS (SELECT FROM {schema}.ledger WHERE key = p_key AND (expires IS NULL OR expires > v_now));
    ELSIF p_value IS NULL THEN
        DELETE FROM {schema}.ledger WHERE key = p_key
            AND (p_any OR value = p_expected AND (expires IS NULL OR expires > v_now));
        RETURN p_any OR FOUND;
    ELSIF p_expected IS NULL OR p_any THEN
        INSERT INTO {schema}.ledger AS l (key, value, expires) VALUES (p_key, p_value, v_now + p_life)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
            WHERE p_any OR l.expires <= v_now;
    ELSE
        UPDATE {schema}.ledger SET value = p_value, expires = v_now + p_life
            WHERE key = p_key AND value = p_expected AND (expires IS NULL OR expires > v_now);
    END IF;
    RETURN FOUND;
END $$;

-- Makes changes in order; for each whether it was made.
CREATE OR REPLACE FUNCTION {schema}.change_ledger(
    p_keys text[], p_values bytea[], p_any boolean[], p_expected bytea[], p_lives float8[]
) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    v_made boolean[] := '{}';
    v_one boolean;
BEGIN
    -- Those who change several keys at once wait for each other here, in one order.
    PERFORM FROM {schema}.ledger WHERE key = ANY (p_keys) ORDER BY key FOR UPDATE;
    FOR i IN 1 .. cardinality(p_keys) LOOP
        v_one := {schema}.change_one(p_keys[i], p_values[i], p_any[i], p_expected[i], p_lives[i]);
        v_made := v_made || v_one;
    END LOOP;
    RETURN v_made;
END $$;

-- Makes all changes, or none of them; returns whether it did.
CREATE OR REPLACE FUNCTION {schema}.change_all(
    p_keys text[], p_values bytea[], p_any boolean[], p_expected bytea[], p_lives float8[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF false = ANY ({schema}.change_ledger(p_keys, p_values, p_any, p_expected, p_lives)) THEN
        RAISE SQLSTATE 'CE001';
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'CE001' THEN
    RETURN false;
END $$;

-- Drops locks that their tasks still hold, waiting or started.
CREATE OR REPLACE FUNCTION {schema}.free(p_keys text[], p_waiting bytea[], p_started bytea[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    DELETE FROM {schema}.ledger AS l USING unnest(p_keys, p_waiting, p_started) AS t (key, waiting, started)
    WHERE l.key = t.key AND l.value IN (t.waiting, t.started);
END $$;

-- Stores messages and makes all changes, or neither: then p_there is what stands under the keys.
CREATE OR REPLACE PROCEDURE {schema}.publish_if(
    p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[],
    p_keys text[], p_values bytea[], p_any boolean[], p_expected bytea[], p_lives float8[], INOUT p_there bytea[]
) LANGUAGE plpgsql AS $$
BEGIN
    IF {schema}.change_all(p_keys, p_values, p_any, p_expected, p_lives) THEN
        PERFORM {schema}.add(p_queues, p_steps, p_dues, p_envelopes);
        p_there := NULL;
        COMMIT;
        PERFORM {schema}.wake(p_queues);
    ELSE
        p_there := {schema}.read_ledger(p_keys);
    END IF;
END $$;
