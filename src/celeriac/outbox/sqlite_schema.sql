-- The outbox on SQLite: rows come with the application's commit and go once they are published. Each statement may be
-- executed again. Times are seconds since the epoch.

-- :table
CREATE TABLE IF NOT EXISTS celeriac_outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    task_id TEXT NOT NULL,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    created REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0),
    attempts INTEGER NOT NULL DEFAULT 0,
    retry_at REAL,
    failed INTEGER NOT NULL DEFAULT 0,
    error TEXT
)

-- :index  what relays look at
CREATE INDEX IF NOT EXISTS celeriac_outbox_waiting ON celeriac_outbox (seq) WHERE NOT failed
