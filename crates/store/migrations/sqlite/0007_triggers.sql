CREATE TABLE triggers (
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    id          TEXT NOT NULL,
    name        TEXT NOT NULL,
    -- Counts changes: a change names the revision that it was decided on.
    revision    INTEGER NOT NULL,
    body        TEXT NOT NULL,
    -- What calls are signed with, sealed under a key that is not in this database.
    sealed      BLOB,
    -- The moment of its next firing, and when that starts; absent when it does not fire by itself.
    next_due_ms INTEGER,
    next_ms     INTEGER,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX triggers_due ON triggers (next_ms) WHERE next_ms IS NOT NULL;
CREATE UNIQUE INDEX triggers_by_id ON triggers (id);

CREATE TABLE firings (
    seq         INTEGER PRIMARY KEY,
    org_id      TEXT NOT NULL,
    trigger_id  TEXT NOT NULL,
    -- What makes it one: the moment that it was due at, the message that called, a number of its own.
    key         TEXT NOT NULL,
    cause       TEXT NOT NULL,
    due_ms      INTEGER NOT NULL,
    fired_ms    INTEGER NOT NULL,
    outcome     TEXT NOT NULL,
    session_id  TEXT,
    detail      TEXT,
    -- What the caller sent, while it waits.
    body        BLOB,
    UNIQUE (org_id, trigger_id, key),
    FOREIGN KEY (org_id, trigger_id) REFERENCES triggers (org_id, id) ON DELETE CASCADE
) STRICT;

CREATE INDEX firings_listed ON firings (org_id, trigger_id, seq);
CREATE INDEX firings_queued ON firings (org_id, trigger_id, seq) WHERE outcome = 'queued';

-- Messages that were taken: none is taken twice.
CREATE TABLE hook_messages (
    org_id      TEXT NOT NULL,
    trigger_id  TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    until_ms    INTEGER NOT NULL,
    PRIMARY KEY (org_id, trigger_id, message_id),
    FOREIGN KEY (org_id, trigger_id) REFERENCES triggers (org_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX hook_messages_old ON hook_messages (until_ms);
