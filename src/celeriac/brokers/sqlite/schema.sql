-- The tables of one Celeriac file, version 3 (PRAGMA user_version). Times are seconds since the epoch but for
-- lease.until, chord.until and chord.look. Envelopes are kombu's JSON text, the same bytes as on Redis.
--
-- A file of an older version gets the tables that it lacks when it is opened; 1 had no chords, 2 no stages.

-- :auto_vacuum  (only counts before the first table)
PRAGMA auto_vacuum = INCREMENTAL;

-- :message  Every message that is waiting, scheduled or leased. The id is the order of arrival: smaller is older.
CREATE TABLE IF NOT EXISTS message (
    id       INTEGER PRIMARY KEY,
    queue    TEXT NOT NULL,
    step     INTEGER NOT NULL,      -- priority rounded down to kombu's steps 0, 3, 6, 9
    at       REAL NOT NULL,         -- when it arrived
    envelope BLOB NOT NULL
);

-- :ready  Those that can be claimed. Apart from the texts, so that a claim rewrites a few narrow pages only.
CREATE TABLE IF NOT EXISTS ready (
    queue TEXT NOT NULL, step INTEGER NOT NULL,
    position INTEGER NOT NULL,      -- the id; below 0 for those that were due or given back, which go first
    id INTEGER NOT NULL,
    alone INTEGER NOT NULL,         -- 1: suspected of having killed its worker, so it is claimed alone
    PRIMARY KEY (queue, step, position, id)
) WITHOUT ROWID;

-- :schedule  Those that wait for their time.
CREATE TABLE IF NOT EXISTS schedule (
    queue TEXT NOT NULL, due REAL NOT NULL, id INTEGER NOT NULL,
    step INTEGER NOT NULL, alone INTEGER NOT NULL,
    PRIMARY KEY (queue, due, id)
) WITHOUT ROWID;

-- :lease  Those lent to a child. claim is a random number: with the id it makes the fencing token.
CREATE TABLE IF NOT EXISTS lease (
    claim INTEGER NOT NULL, id INTEGER NOT NULL,
    owner TEXT NOT NULL,
    until REAL NOT NULL,            -- on the clock of this boot: it does not jump, and ends with every process
    boot  INTEGER NOT NULL,
    PRIMARY KEY (claim, id)
) WITHOUT ROWID;

-- :staged  Messages of a send that is not complete yet: in the table of messages, but in no other.
CREATE TABLE IF NOT EXISTS staged (
    stage TEXT NOT NULL, id INTEGER NOT NULL,
    queue TEXT NOT NULL, step INTEGER NOT NULL,
    due REAL,                       -- NULL: at once
    PRIMARY KEY (stage, id)
) WITHOUT ROWID;

-- :dead  Dead letters, oldest first.
CREATE TABLE IF NOT EXISTS dead (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, task TEXT NOT NULL, queue TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    exception TEXT NOT NULL, worker TEXT NOT NULL, at REAL NOT NULL, crashes INTEGER NOT NULL,
    traceback TEXT NOT NULL, raw BLOB NOT NULL
);

-- :dead_queue
CREATE INDEX IF NOT EXISTS dead_queue ON dead (queue);

-- :dead_at
CREATE INDEX IF NOT EXISTS dead_at ON dead (at);

-- :result  Result records, in the order of their writing; the newest of an id counts (see results.sql).
CREATE TABLE IF NOT EXISTS result (
    seq     INTEGER PRIMARY KEY,
    weak    INTEGER NOT NULL,       -- 1: not terminal, so it does not hide an earlier SUCCESS
    expires REAL,                   -- NULL: never
    id      TEXT NOT NULL,
    body    BLOB NOT NULL
);

-- :finding  Where the records of an id are: its hash within a bucket of 8192 consecutive records.
CREATE TABLE IF NOT EXISTS finding (
    bucket INTEGER NOT NULL, hash INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (bucket, hash, seq)
) WITHOUT ROWID;

-- :bucket  The buckets that hold records. The newest stays, for it counts the records.
CREATE TABLE IF NOT EXISTS bucket (
    number   INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,      -- the highest seq ever given in it
    earliest REAL                   -- no record in it expires before; NULL: none expires
);

-- :chord  Chords that wait for members, and for a while those that are done. One row a chord, rewritten by every batch
-- of members: it counts them and is narrow.
CREATE TABLE IF NOT EXISTS chord (
    key     INTEGER PRIMARY KEY,    -- its name in the tables below
    id      TEXT NOT NULL UNIQUE,
    size    INTEGER,                -- NULL: nobody has opened it
    grown   INTEGER NOT NULL,
    joined  INTEGER NOT NULL,       -- how many members there are
    done    INTEGER NOT NULL,
    bare    INTEGER NOT NULL,       -- 1: nobody has brought its body
    life    REAL,                   -- NULL: for ever
    expires REAL,                   -- now + life at the last opening or joining
    token   TEXT,                   -- whose holder sends the body
    leased  INTEGER NOT NULL,       -- 1: that of a delivery, so it is over when its lease is
    until   REAL NOT NULL,          -- when the holder's time is over and
    look    REAL NOT NULL,          -- when somebody must look at it, on the clock of this boot
    boot    INTEGER NOT NULL
);

-- :chord_look
CREATE INDEX IF NOT EXISTS chord_look ON chord (boot, look);

-- :chord_text  What its body is made of, once it is complete.
CREATE TABLE IF NOT EXISTS chord_text (
    chord INTEGER PRIMARY KEY, body BLOB NOT NULL, shape BLOB NOT NULL
);

-- :part  The members that have ended, in their order.
CREATE TABLE IF NOT EXISTS part (
    chord INTEGER NOT NULL,
    place INTEGER NOT NULL,         -- the index; 2**63 - 1 without one
    id TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (chord, place, id)
) WITHOUT ROWID;

-- :bus  Events, remote control and its replies, for a minute at most.
CREATE TABLE IF NOT EXISTS bus (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, expires REAL NOT NULL,
    headers BLOB NOT NULL, payload BLOB NOT NULL
);
