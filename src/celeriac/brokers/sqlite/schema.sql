-- The tables of one Celeriac file, version 1 (PRAGMA user_version). Times are seconds since the epoch but for
-- lease.until. Envelopes are kombu's JSON text, the same bytes as on Redis.

-- :auto_vacuum  (only counts before the first table)
PRAGMA auto_vacuum = INCREMENTAL;

-- :message  Every message that is waiting, scheduled or leased. The id is the order of arrival: smaller is older.
CREATE TABLE message (
    id       INTEGER PRIMARY KEY,
    queue    TEXT NOT NULL,
    step     INTEGER NOT NULL,      -- priority rounded down to kombu's steps 0, 3, 6, 9
    at       REAL NOT NULL,         -- when it arrived
    envelope BLOB NOT NULL
);

-- :ready  Those that can be claimed. Apart from the texts, so that a claim rewrites a few narrow pages only.
CREATE TABLE ready (
    queue TEXT NOT NULL, step INTEGER NOT NULL,
    position INTEGER NOT NULL,      -- the id; below 0 for those that were due or given back, which go first
    id INTEGER NOT NULL,
    alone INTEGER NOT NULL,         -- 1: suspected of having killed its worker, so it is claimed alone
    PRIMARY KEY (queue, step, position, id)
) WITHOUT ROWID;

-- :schedule  Those that wait for their time.
CREATE TABLE schedule (
    queue TEXT NOT NULL, due REAL NOT NULL, id INTEGER NOT NULL,
    step INTEGER NOT NULL, alone INTEGER NOT NULL,
    PRIMARY KEY (queue, due, id)
) WITHOUT ROWID;

-- :lease  Those lent to a child. claim is a random number: with the id it makes the fencing token.
CREATE TABLE lease (
    claim INTEGER NOT NULL, id INTEGER NOT NULL,
    owner TEXT NOT NULL,
    until REAL NOT NULL,            -- on the clock of this boot: it does not jump, and ends with every process
    boot  INTEGER NOT NULL,
    PRIMARY KEY (claim, id)
) WITHOUT ROWID;

-- :dead  Dead letters, oldest first.
CREATE TABLE dead (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, task TEXT NOT NULL, queue TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    exception TEXT NOT NULL, worker TEXT NOT NULL, at REAL NOT NULL, crashes INTEGER NOT NULL,
    traceback TEXT NOT NULL, raw BLOB NOT NULL
);

-- :dead_queue
CREATE INDEX dead_queue ON dead (queue);

-- :dead_at
CREATE INDEX dead_at ON dead (at);

-- :result  Result records, in the order of their writing; the newest of an id counts (see results.sql).
CREATE TABLE result (
    seq     INTEGER PRIMARY KEY,
    weak    INTEGER NOT NULL,       -- 1: not terminal, so it does not hide an earlier SUCCESS
    expires REAL,                   -- NULL: never
    id      TEXT NOT NULL,
    body    BLOB NOT NULL
);

-- :finding  Where the records of an id are: its hash within a bucket of 8192 consecutive records.
CREATE TABLE finding (
    bucket INTEGER NOT NULL, hash INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (bucket, hash, seq)
) WITHOUT ROWID;

-- :bucket  The buckets that hold records. The newest stays, for it counts the records.
CREATE TABLE bucket (
    number   INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,      -- the highest seq ever given in it
    earliest REAL                   -- no record in it expires before; NULL: none expires
);

-- :bus  Events, remote control and its replies, for a minute at most.
CREATE TABLE bus (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, expires REAL NOT NULL,
    headers BLOB NOT NULL, payload BLOB NOT NULL
);
