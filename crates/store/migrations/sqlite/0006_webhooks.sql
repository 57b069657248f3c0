-- Where to tell that the session ended.
ALTER TABLE sessions ADD COLUMN webhook_url TEXT;

-- Nothing was ever written to it: messages are rows of their own kind now.
DROP TABLE outbox;

CREATE TABLE deliveries (
    -- The order in which messages were written.
    seq              INTEGER PRIMARY KEY,
    org_id           TEXT NOT NULL REFERENCES orgs (id),
    id               TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    event            TEXT NOT NULL,
    url              TEXT NOT NULL,
    payload          TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    status           TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    -- Attempts of this round: a retry by hand begins another.
    tries            INTEGER NOT NULL,
    -- When this round is given up.
    until_ms         INTEGER NOT NULL,
    due_ms           INTEGER NOT NULL,
    -- Who tries it now, and until when nobody else may.
    lease            TEXT,
    leased_until_ms  INTEGER,
    last             TEXT,
    finished_ms      INTEGER,
    UNIQUE (org_id, id)
) STRICT;

CREATE INDEX deliveries_due ON deliveries (due_ms) WHERE status = 'pending';
CREATE INDEX deliveries_in_order ON deliveries (org_id, session_id, seq) WHERE status = 'pending';
CREATE INDEX deliveries_over ON deliveries (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX deliveries_listed ON deliveries (org_id, seq);

-- The secret that an org's messages are signed with, and the one before it. Sealed under a key that is not in this
-- database.
CREATE TABLE webhook_secrets (
    org_id             TEXT PRIMARY KEY REFERENCES orgs (id),
    version            INTEGER NOT NULL,
    sealed             BLOB NOT NULL,
    created_ms         INTEGER NOT NULL,
    previous           BLOB,
    previous_until_ms  INTEGER
) STRICT, WITHOUT ROWID;
