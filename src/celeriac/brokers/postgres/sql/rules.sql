-- Rules of the fleet, and messages taken out of the midst of their queues.

-- Writes or drops (value NULL) rules; returns the last epoch. p_keep: how many rules that begin with p_some are kept.
CREATE OR REPLACE FUNCTION {schema}.set_rules(
    p_keys text[], p_values bytea[], p_lives float8[], p_tombstone float8, p_some text, p_keep integer
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_now float8;
    v_epoch bigint;
    v_surplus bigint;
BEGIN
    SELECT epoch INTO v_epoch FROM {schema}.rule_epoch FOR UPDATE;
    v_now := {schema}.moment();
    FOR i IN 1 .. cardinality(p_keys) LOOP
        v_epoch := greatest(v_epoch + 1, (v_now * 1000)::bigint);
        INSERT INTO {schema}.rule (key, value, expires, epoch)
        VALUES (p_keys[i], p_values[i], v_now + CASE WHEN p_values[i] IS NULL THEN p_tombstone ELSE p_lives[i] END, v_epoch)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires, epoch = excluded.epoch;
    END LOOP;
    IF cardinality(p_keys) > 0 THEN
        UPDATE {schema}.rule_epoch SET epoch = v_epoch, floor = greatest(floor, coalesce(
            (SELECT max(epoch) FROM {schema}.rule WHERE expires <= v_now AND value IS NULL), 0));
        DELETE FROM {schema}.rule WHERE expires <= v_now;
        SELECT epoch INTO v_surplus FROM {schema}.rule WHERE starts_with(key, p_some) ORDER BY epoch DESC LIMIT 1 OFFSET p_keep;
        DELETE FROM {schema}.rule WHERE starts_with(key, p_some) AND epoch <= v_surplus;
        PERFORM pg_notify({schema}.channel('r', 'rules'), '');
    END IF;
    RETURN v_epoch;
END $$;

-- The rules that changed after an epoch, in the order of their changes, or all that are in force (complete); at last a
-- row without key: the time, and the epoch now.
CREATE OR REPLACE FUNCTION {schema}.read_rules(p_after bigint, p_prefix text)
RETURNS TABLE (key text, value bytea, expires float8, epoch bigint, complete boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    e {schema}.rule_epoch;
    v_complete boolean;
BEGIN
    SELECT * INTO e FROM {schema}.rule_epoch FOR SHARE;
    v_complete := p_after < greatest(e.floor, 1) OR p_after > e.epoch;
    RETURN QUERY SELECT r.key::text, r.value, r.expires, r.epoch, v_complete FROM {schema}.rule AS r
        WHERE CASE WHEN v_complete THEN r.value IS NOT NULL ELSE r.epoch > p_after END AND starts_with(r.key, p_prefix)
        ORDER BY r.epoch;
    RETURN QUERY SELECT NULL::text, NULL::bytea, {schema}.moment(), e.epoch, v_complete;
END $$;

-- Looks at the next p_limit messages behind p_after: those of some queues whose text contains one of p_forms; at last a
-- row without text: the id of the last one that was looked at, or NULL behind the end.
CREATE OR REPLACE FUNCTION {schema}.search(p_queues text[], p_forms bytea[], p_after bigint, p_limit integer)
RETURNS TABLE (id bigint, envelope bytea) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH page AS MATERIALIZED (
            SELECT m.id, m.queue, m.envelope FROM {schema}.message AS m WHERE m.id > p_after ORDER BY m.id LIMIT p_limit
        )
        SELECT p.id, p.envelope FROM page AS p WHERE p.queue = ANY (p_queues) AND EXISTS (
            SELECT FROM unnest(p_forms) AS f (form) WHERE position(f.form IN p.envelope) > 0)
        UNION ALL SELECT max(p.id), NULL FROM page AS p;
END $$;

-- Lends those of these messages that nobody holds: id, queue and envelope of each.
CREATE OR REPLACE FUNCTION {schema}.withdraw(p_ids bigint[], p_owner text, p_claim bigint, p_lease float8)
RETURNS TABLE (id bigint, queue text, envelope bytea) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE v_taken bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT m.id, m.queue, m.step FROM {schema}.message AS m WHERE m.id = ANY (p_ids)
    ), from_ready AS (
        -- Those in the order of their arrival have their ids as positions; the others are in front.
        DELETE FROM {schema}.ready AS r USING wanted AS w
        WHERE r.queue = w.queue AND r.step = w.step AND r.position = w.id AND r.id = w.id RETURNING r.id
    ), from_front AS (
        DELETE FROM {schema}.ready AS r USING (SELECT DISTINCT w.queue, w.step FROM wanted AS w) AS w
        WHERE r.queue = w.queue AND r.step = w.step AND r.position < 0 AND r.id = ANY (p_ids) RETURNING r.id
    ), from_schedule AS (
        DELETE FROM {schema}.schedule AS s USING (SELECT DISTINCT w.queue FROM wanted AS w) AS w
        WHERE s.queue = w.queue AND s.id = ANY (p_ids) RETURNING s.id
    ), from_parks AS (
        DELETE FROM {schema}.parked AS k USING wanted AS w WHERE k.queue = w.queue AND k.id = w.id RETURNING k.id
    )
    SELECT array_agg(t.id ORDER BY t.id) INTO v_taken FROM (
        SELECT f.id FROM from_ready AS f UNION ALL SELECT f.id FROM from_front AS f
        UNION ALL SELECT f.id FROM from_schedule AS f UNION ALL SELECT f.id FROM from_parks AS f
    ) AS t;
    INSERT INTO {schema}.lease (claim, id, owner, until)
        SELECT p_claim, t.id, p_owner, {schema}.moment() + p_lease FROM unnest(v_taken) AS t (id);
    RETURN QUERY SELECT m.id, m.queue::text, m.envelope FROM {schema}.message AS m WHERE m.id = ANY (v_taken) ORDER BY m.id;
END $$;
