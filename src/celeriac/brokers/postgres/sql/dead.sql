-- Dead letters: looked at, sent again, dropped, kept within bounds.

-- The newest letters before a key, of one queue or (NULL) of all.
CREATE OR REPLACE FUNCTION {schema}.dead_before(p_key bigint, p_queue text, p_limit integer) RETURNS SETOF {schema}.dead
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF p_queue IS NULL THEN
        RETURN QUERY SELECT * FROM {schema}.dead WHERE key < p_key ORDER BY key DESC LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT * FROM {schema}.dead WHERE queue = p_queue AND key < p_key ORDER BY key DESC LIMIT p_limit;
    END IF;
END $$;

-- Puts messages in the place of letters, each with its change of the ledger (p_changes: there is one), and wakes who
-- waits. For each: "sent", "gone", or "kept", and what stands under its key of the ledger then.
CREATE OR REPLACE PROCEDURE {schema}.replay(
    p_letters bigint[], p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[],
    p_changes boolean[], p_keys text[], p_values bytea[], p_any boolean[], p_expected bytea[], p_lives float8[],
    INOUT p_ends text[], INOUT p_there bytea[]
) LANGUAGE plpgsql AS $$
BEGIN
    p_ends := '{}';
    p_there := '{}';
    PERFORM FROM {schema}.dead WHERE key = ANY (p_letters) ORDER BY key FOR UPDATE;
    FOR i IN 1 .. cardinality(p_letters) LOOP
        p_there := p_there || NULL::bytea;
        IF NOT EXISTS (SELECT FROM {schema}.dead WHERE key = p_letters[i]) THEN
            p_ends := p_ends || 'gone'::text;
        ELSIF p_changes[i] AND NOT {schema}.change_one(p_keys[i], p_values[i], p_any[i], p_expected[i], p_lives[i]) THEN
            p_ends := p_ends || 'kept'::text;
            p_there[i] := ({schema}.read_ledger(p_keys[i:i]))[1];
        ELSE
            DELETE FROM {schema}.dead WHERE key = p_letters[i];
            PERFORM {schema}.add(p_queues[i:i], p_steps[i:i], p_dues[i:i], p_envelopes[i:i]);
            p_ends := p_ends || 'sent'::text;
        END IF;
    END LOOP;
    COMMIT;
    PERFORM {schema}.wake(p_queues);
END $$;

-- Forgets letters; returns how many there were.
CREATE OR REPLACE FUNCTION {schema}.drop_dead(p_keys bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_count integer;
BEGIN
    DELETE FROM {schema}.dead WHERE key = ANY (p_keys);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Drops letters that died before p_before, then the oldest beyond p_keep letters or p_bytes, up to 2000 for each
-- reason; returns how many of them were not too old.
CREATE OR REPLACE FUNCTION {schema}.trim_dead(p_before float8, p_keep bigint, p_bytes bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_surplus integer;
    v_more integer;
    v_over bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock({schema}.gate('trim', 'dead')) THEN
        RETURN 0;
    END IF;
    DELETE FROM {schema}.dead WHERE key IN (SELECT key FROM {schema}.dead WHERE at < p_before LIMIT 2000);
    DELETE FROM {schema}.dead WHERE key <= (SELECT key FROM {schema}.dead ORDER BY key DESC LIMIT 1 OFFSET p_keep);
    GET DIAGNOSTICS v_surplus = ROW_COUNT;
    SELECT coalesce(sum(size), 0) - p_bytes INTO v_over FROM {schema}.dead;
    IF v_over > 0 THEN
        DELETE FROM {schema}.dead WHERE key IN (
            SELECT key FROM (
                SELECT key, sum(size) OVER (ORDER BY key) - size AS before FROM {schema}.dead ORDER BY key LIMIT 2000
            ) AS t WHERE t.before < v_over);
        GET DIAGNOSTICS v_more = ROW_COUNT;
        v_surplus := v_surplus + v_more;
    END IF;
    RETURN v_surplus;
END $$;
