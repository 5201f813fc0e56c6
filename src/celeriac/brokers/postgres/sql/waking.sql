-- Who waits is woken by NOTIFY, and only then: a NOTIFY costs the server a lock over all that commit, and each listener
-- some work. Whoever waits for messages holds an advisory lock; whoever waits for a result stands in a table.
--
-- Callers look after their commit. So nobody is missed: a waiter first says that it waits and then looks, a writer
-- first commits and then looks for waiters. A message written inside a transaction of others cannot do so: `announce`.

CREATE OR REPLACE FUNCTION {schema}.wake(p_queues text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_queue text;
BEGIN
    FOREACH v_queue IN ARRAY p_queues LOOP
        IF NOT pg_try_advisory_xact_lock({schema}.door(v_queue)) THEN
            PERFORM pg_notify({schema}.channel('q', v_queue), '');
        END IF;
    END LOOP;
END $$;

-- Wakes whoever waits for one of these results, and says which ones when that fits.
CREATE OR REPLACE FUNCTION {schema}.wake_readers(p_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.waiter) THEN
        RETURN;
    END IF;
    PERFORM pg_notify(w.channel, w.ids) FROM (
        SELECT e.channel, CASE WHEN sum(length(e.id)) < 1500 THEN string_agg(e.id, E'\n') ELSE '' END AS ids
        FROM (
            SELECT waiter.channel, t.id FROM unnest(p_ids) AS t (id) JOIN {schema}.waiter ON waiter.id = t.id
            UNION ALL
            SELECT waiter.channel, t.id FROM unnest(p_ids) AS t (id), {schema}.waiter WHERE waiter.id = '' AND t.id IS NOT NULL
        ) AS e GROUP BY e.channel
    ) AS w;
END $$;

-- With the transaction, whoever waits.
CREATE OR REPLACE FUNCTION {schema}.announce(p_queues text[]) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify({schema}.channel('q', q), '') FROM (SELECT DISTINCT unnest(p_queues)) AS t (q)
$$;

-- From now on this session is woken for messages of these queues, and when the rules change. Returns those whose locks
-- it holds now: not one for which somebody looks for waiters in this moment. p_listens: to their channels, already.
CREATE OR REPLACE FUNCTION {schema}.attend(p_queues text[], p_listens boolean) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_queue text;
    v_held text[] := '{}';
BEGIN
    FOREACH v_queue IN ARRAY p_queues LOOP
        IF pg_try_advisory_lock_shared({schema}.door(v_queue)) THEN
            v_held := v_held || v_queue;
        END IF;
        IF NOT p_listens THEN
            EXECUTE format('LISTEN %I', {schema}.channel('q', v_queue));
        END IF;
    END LOOP;
    IF NOT p_listens THEN
        EXECUTE format('LISTEN %I', {schema}.channel('r', 'rules'));
    END IF;
    RETURN v_held;
END $$;

-- It does not wait any more.
CREATE OR REPLACE FUNCTION {schema}.leave(p_queues text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_queue text;
BEGIN
    FOREACH v_queue IN ARRAY p_queues LOOP
        PERFORM pg_advisory_unlock_shared({schema}.door(v_queue));
    END LOOP;
END $$;
