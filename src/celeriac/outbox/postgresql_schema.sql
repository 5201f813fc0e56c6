-- The outbox on PostgreSQL: rows come with the application's commit and go once they are published. Each statement may be
-- executed again. A relay takes rows by FOR UPDATE SKIP LOCKED; who dies lets go of them.

-- :table  seq: order of writing, which is not quite that of the commits
CREATE TABLE IF NOT EXISTS celeriac_outbox (
    id text PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    task text NOT NULL,
    task_id text NOT NULL,
    queue text NOT NULL,
    body bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    failed boolean NOT NULL DEFAULT false,
    error text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)

-- :index  what relays look at
CREATE INDEX IF NOT EXISTS celeriac_outbox_waiting ON celeriac_outbox (seq) WHERE NOT failed

-- :function  wakes the relays when the transaction commits; PostgreSQL tells a transaction's equal notices once
CREATE OR REPLACE FUNCTION celeriac_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('celeriac_outbox', '');
    RETURN NULL;
END
$$

-- :trigger
CREATE OR REPLACE TRIGGER celeriac_outbox_notify AFTER INSERT ON celeriac_outbox
FOR EACH STATEMENT EXECUTE FUNCTION celeriac_outbox_notify()
