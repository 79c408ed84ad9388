-- Schema 1. Times are milliseconds since 1970; ids are 16 bytes; records are JSON of `record.rs`.

-- Where the log stands: the tree, this node's chain, the newest published checkpoint. One row.
CREATE TABLE log_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    chain BLOB NOT NULL,
    checkpoint BLOB
) STRICT;

-- Committed batches that no published tile covers yet.
CREATE TABLE log_batch (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    frontier BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    chain BLOB NOT NULL,
    signature BLOB NOT NULL,
    packed BLOB NOT NULL
) STRICT;

CREATE TABLE agent (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE upstream (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE task (
    id BLOB PRIMARY KEY,
    agent TEXT NOT NULL,
    record TEXT NOT NULL,
    workload TEXT NOT NULL,
    wrapped_key BLOB,
    calls_used INTEGER NOT NULL,
    read_untrusted INTEGER NOT NULL,
    read_sensitivity INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    attested_at INTEGER NOT NULL,
    ended_at INTEGER,
    end_reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX task_open ON task (id) WHERE ended_at IS NULL;
CREATE INDEX task_agent ON task (agent, id);

CREATE TABLE evidence (key BLOB PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX evidence_expires ON evidence (expires);

CREATE TABLE revoked_token (jti TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE opening (entry INTEGER PRIMARY KEY, task BLOB NOT NULL, sealed BLOB NOT NULL) STRICT;
