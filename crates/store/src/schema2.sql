-- Schema 2: grants. `state` is the place of the state in `GrantState::ALL`; dead ones (5) have no `next_try_at`.

CREATE TABLE credential (
    id BLOB PRIMARY KEY,
    task BLOB NOT NULL,
    agent TEXT NOT NULL,
    target TEXT NOT NULL,
    offer TEXT NOT NULL,
    decision BLOB NOT NULL,
    handle TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    state INTEGER NOT NULL,
    revoked_at INTEGER,
    reason TEXT,
    next_try_at INTEGER,
    tries INTEGER NOT NULL,
    sealed BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX credential_due ON credential (target, (revoked_at IS NULL), next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX credential_task ON credential (task, id);
