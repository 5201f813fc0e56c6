-- The tables of one schema, version 1. Times are seconds since the epoch, by the server's clock. Envelopes are kombu's
-- JSON text, the same bytes as in SQLite and on Redis. Names and keys are compared byte by byte (COLLATE "C"): that is
-- faster, and no upgrade of a C library can spoil an index.
--
-- What moves is narrow and apart from the texts: a claim deletes rows of `ready` and adds rows of `lease`, and the
-- text of a message is written once and dropped once (ADR 0019 has the measurement).

CREATE SEQUENCE {schema}.message_number;

-- Every message that waits, is scheduled, parked, staged or leased. The id is the order of arrival.
CREATE TABLE {schema}.message (
    id       bigint PRIMARY KEY,
    queue    text COLLATE "C" NOT NULL,
    step     smallint NOT NULL,         -- priority rounded down to kombu's steps 0, 3, 6, 9
    at       float8 NOT NULL,           -- when it arrived
    envelope bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {schema}.message ALTER envelope SET STORAGE EXTERNAL;

-- Those that can be claimed.
CREATE TABLE {schema}.ready (
    queue    text COLLATE "C" NOT NULL,
    step     smallint NOT NULL,
    position bigint NOT NULL,           -- the id; below 0 for those that were due or given back, which go first
    id       bigint NOT NULL,
    alone    boolean NOT NULL,          -- suspected of having killed its worker, so it is claimed alone
    PRIMARY KEY (queue, step, position, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_threshold = -1);

-- Those that wait for their time.
CREATE TABLE {schema}.schedule (
    queue text COLLATE "C" NOT NULL,
    due   float8 NOT NULL,
    id    bigint NOT NULL,
    step  smallint NOT NULL,
    alone boolean NOT NULL,
    PRIMARY KEY (queue, due, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Those lent to a child. claim is a random number: with the id it makes the fencing token. No index but the key, and
-- room in the pages: renewing a lease writes no index.
CREATE TABLE {schema}.lease (
    claim bigint NOT NULL,
    id    bigint NOT NULL,
    owner text COLLATE "C" NOT NULL,
    until float8 NOT NULL,
    PRIMARY KEY (claim, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1);

-- Messages of a send that is not complete yet: in the table of messages, but in no other.
CREATE TABLE {schema}.staged (
    stage text COLLATE "C" NOT NULL,
    id    bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    step  smallint NOT NULL,
    due   float8,                       -- NULL: at once
    PRIMARY KEY (stage, id)
);

-- Dead letters, oldest first.
CREATE TABLE {schema}.dead (
    key       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text COLLATE "C" NOT NULL,
    task      text COLLATE "C" NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    reason    text COLLATE "C" NOT NULL,
    detail    text NOT NULL,
    exception text NOT NULL,
    worker    text COLLATE "C" NOT NULL,
    at        float8 NOT NULL,
    crashes   integer NOT NULL,
    traceback text NOT NULL,
    size      integer NOT NULL,         -- bytes of raw and traceback, so that their sum is read without them
    raw       bytea NOT NULL
);
ALTER TABLE {schema}.dead ALTER raw SET STORAGE EXTERNAL;
CREATE INDEX dead_queue ON {schema}.dead (queue, key);
CREATE INDEX dead_at ON {schema}.dead (at);

-- Result records, one for each id.
CREATE TABLE {schema}.result (
    id       text COLLATE "C" PRIMARY KEY,
    terminal boolean NOT NULL,
    success  boolean NOT NULL,          -- a record that is not terminal does not replace it
    expires  float8,                    -- NULL: never
    body     bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {schema}.result ALTER body SET STORAGE EXTERNAL;
CREATE INDEX result_expires ON {schema}.result (expires) WHERE expires IS NOT NULL;

-- Chords that wait for members, and for a while those that are done. Rewritten by every batch of members: narrow, and
-- with room in the pages.
CREATE TABLE {schema}.chord (
    key     bigint GENERATED ALWAYS AS IDENTITY UNIQUE,     -- its name in the tables below
    id      text COLLATE "C" PRIMARY KEY,
    size    integer,                    -- NULL: nobody has opened it
    grown   integer NOT NULL DEFAULT 0,
    joined  integer NOT NULL DEFAULT 0, -- how many members there are
    done    boolean NOT NULL DEFAULT false,
    bare    boolean NOT NULL DEFAULT true,  -- nobody has brought its body
    life    float8,                     -- NULL: for ever
    expires float8,                     -- now + life at the last opening or joining
    token   text COLLATE "C",                       -- whose holder sends the body
    leased  boolean NOT NULL DEFAULT false, -- that of a delivery, so it is over when its lease is
    until   float8 NOT NULL DEFAULT 0,  -- when the holder's time is over
    look    float8 NOT NULL             -- when somebody must look at it
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX chord_look ON {schema}.chord (look);

-- What its body is made of, once it is complete.
CREATE TABLE {schema}.chord_text (chord bigint PRIMARY KEY, body bytea NOT NULL, shape bytea NOT NULL);

-- The members that have ended, in their order.
CREATE TABLE {schema}.part (
    chord bigint NOT NULL,
    place bigint NOT NULL,              -- the index; 2^63 - 1 without one
    id    text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (chord, place, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Rates: when the next start of a bucket is in time, and the first moment that nobody has reserved.
CREATE TABLE {schema}.pace (
    bucket text COLLATE "C" PRIMARY KEY,
    start  float8 NOT NULL,
    line   float8 NOT NULL
) WITH (fillfactor = 50);

-- Who has a seat of a key: the lease of that claim and id, as long as there is one; or the message, until then.
CREATE TABLE {schema}.seat (
    key   text COLLATE "C" NOT NULL,
    id    bigint NOT NULL,
    claim bigint,                       -- NULL: it was woken, and its seat is kept for it
    until float8 NOT NULL,
    PRIMARY KEY (key, id)
);

-- Those that wait for a seat.
CREATE TABLE {schema}.parked (
    key      text COLLATE "C" NOT NULL,
    position bigint NOT NULL,           -- smaller is earlier; below 0 for those that were parked in front
    id       bigint NOT NULL,
    queue    text COLLATE "C" NOT NULL,
    step     smallint NOT NULL,
    alone    boolean NOT NULL,
    most     integer NOT NULL,          -- how many seats there are
    PRIMARY KEY (key, position, id)
);
CREATE INDEX parked_queue ON {schema}.parked (queue, id);

-- What every worker must obey (model/rules.py); one that was dropped has no value and stays for a while.
CREATE TABLE {schema}.rule (
    key     text COLLATE "C" PRIMARY KEY,
    value   bytea,
    expires float8,                     -- NULL: never
    epoch   bigint NOT NULL             -- the one that its last change began
);
CREATE INDEX rule_by_epoch ON {schema}.rule (epoch);
CREATE INDEX rule_expires ON {schema}.rule (expires) WHERE expires IS NOT NULL;

-- One row: the newest epoch, and the last one of all dropped rules that are forgotten.
CREATE TABLE {schema}.rule_epoch (one integer PRIMARY KEY, epoch bigint NOT NULL, floor bigint NOT NULL);
INSERT INTO {schema}.rule_epoch VALUES (1, 0, 0);

-- Locks of unique tasks, idempotency keys, steps of tasks.
CREATE TABLE {schema}.ledger (
    key     text COLLATE "C" PRIMARY KEY,
    value   bytea NOT NULL,
    expires float8                      -- NULL: never
);
CREATE INDEX ledger_expires ON {schema}.ledger (expires) WHERE expires IS NOT NULL;

-- Events, remote control and its replies, for a minute at most; a crash of the server may drop them.
CREATE UNLOGGED TABLE {schema}.bus (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange    text COLLATE "C" NOT NULL,
    routing_key text COLLATE "C" NOT NULL,
    expires     float8 NOT NULL,
    headers     bytea NOT NULL,
    payload     bytea NOT NULL
);
CREATE INDEX bus_expires ON {schema}.bus (expires);

-- Who listens to an exchange, so that nothing is written that nobody reads.
CREATE UNLOGGED TABLE {schema}.ear (
    exchange text COLLATE "C" NOT NULL,
    name     text COLLATE "C" NOT NULL,             -- of the listener
    until    float8 NOT NULL,
    PRIMARY KEY (exchange, name)
);

-- Who waits for a result: the channel that it listens to. An empty id means any.
CREATE UNLOGGED TABLE {schema}.waiter (
    id      text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    until   float8 NOT NULL,
    PRIMARY KEY (id, channel)
);
CREATE INDEX waiter_channel ON {schema}.waiter (channel);
