-- Sends of more messages than one call should carry: put aside in several, made ready in one step.

CREATE OR REPLACE FUNCTION {schema}.stage(
    p_stage text, p_queues text[], p_steps smallint[], p_dues float8[], p_envelopes bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_now float8 := {schema}.moment();
BEGIN
    WITH fresh AS MATERIALIZED (
        SELECT nextval('{schema}.message_number') AS id, t.queue, t.step, t.due, t.envelope
        FROM unnest(p_queues, p_steps, p_dues, p_envelopes) AS t (queue, step, due, envelope)
    ), stored AS (
        INSERT INTO {schema}.message (id, queue, step, at, envelope) SELECT id, queue, step, v_now, envelope FROM fresh
    )
    INSERT INTO {schema}.staged (stage, id, queue, step, due) SELECT p_stage, id, queue, step, due FROM fresh;
END $$;

-- Makes a stage ready or scheduled; p_done is false, and nothing happens, when it does not hold p_count messages.
CREATE OR REPLACE PROCEDURE {schema}.launch(p_stage text, p_count integer, INOUT p_done boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_queues text[];
    v_now float8 := {schema}.moment();
BEGIN
    PERFORM pg_advisory_xact_lock({schema}.gate('stage', p_stage));
    p_done := (SELECT count(*) FROM {schema}.staged WHERE stage = p_stage) = p_count;
    IF NOT p_done THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.staged WHERE stage = p_stage RETURNING id, queue, step, due
    ), later AS (
        INSERT INTO {schema}.schedule (queue, due, id, step, alone)
        SELECT queue, due, id, step, false FROM gone WHERE due > v_now
    ), now AS (
        INSERT INTO {schema}.ready (queue, step, position, id, alone)
        SELECT queue, step, id, id, false FROM gone WHERE due IS NULL OR due <= v_now
    )
    SELECT array_agg(DISTINCT queue) INTO v_queues FROM gone;
    COMMIT;
    PERFORM {schema}.wake(coalesce(v_queues, '{}'));
END $$;

-- Forgets stages whose producers put nothing aside since that moment: they died.
CREATE OR REPLACE FUNCTION {schema}.drop_stages(p_before float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_stages text[];
BEGIN
    SELECT array_agg(stage) INTO v_stages FROM (
        SELECT s.stage FROM {schema}.staged AS s JOIN {schema}.message AS m USING (id) GROUP BY s.stage HAVING max(m.at) < p_before
    ) AS t;
    IF v_stages IS NOT NULL THEN
        DELETE FROM {schema}.message WHERE id IN (SELECT id FROM {schema}.staged WHERE stage = ANY (v_stages));
        DELETE FROM {schema}.staged WHERE stage = ANY (v_stages);
    END IF;
END $$;
