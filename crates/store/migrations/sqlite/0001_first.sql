CREATE TABLE orgs (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- The end of the org's audit chain.
    head_seq   INTEGER NOT NULL,
    head_hash  TEXT NOT NULL
) STRICT;

CREATE TABLE sessions (
    org_id   TEXT NOT NULL REFERENCES orgs (id),
    id       TEXT NOT NULL,
    phase    TEXT NOT NULL,
    body     TEXT NOT NULL,
    sandbox  TEXT,
    result   TEXT,
    PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_unfinished ON sessions (phase) WHERE phase <> 'torn_down';

CREATE TABLE audit (
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    seq         INTEGER NOT NULL,
    session_id  TEXT,
    hash        TEXT NOT NULL,
    -- Exactly the bytes that were hashed.
    canonical   TEXT NOT NULL,
    PRIMARY KEY (org_id, seq)
) STRICT, WITHOUT ROWID;

-- Against mistakes of ours. Whoever has the file can drop them; the chain is for that.
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE INDEX audit_of_session ON audit (org_id, session_id, seq) WHERE session_id IS NOT NULL;

CREATE TABLE idempotency (
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    key         TEXT NOT NULL,
    digest      TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (org_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES orgs (id),
    name         TEXT NOT NULL,
    role         TEXT NOT NULL,
    scopes       TEXT,
    secret_hash  TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    revoked_ms   INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY,
    org_id   TEXT NOT NULL REFERENCES orgs (id),
    topic    TEXT NOT NULL,
    payload  TEXT NOT NULL
) STRICT;
