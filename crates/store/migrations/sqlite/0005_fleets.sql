CREATE TABLE fleets (
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    id          TEXT NOT NULL,
    phase       TEXT NOT NULL,
    body        TEXT NOT NULL,
    -- What every member is, when they differ in their inputs alone.
    template    TEXT,
    -- Of the request that made it, until it is forgotten.
    idem_key    TEXT,
    idem_digest TEXT,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX fleets_unfinished ON fleets (phase) WHERE phase IN ('pending', 'running');

CREATE UNIQUE INDEX fleets_by_key ON fleets (org_id, idem_key) WHERE idem_key IS NOT NULL;

-- A member that waits for its turn is a row here and nothing else. Once it has a session, that row says what became of it.
CREATE TABLE fleet_members (
    org_id      TEXT NOT NULL,
    fleet_id    TEXT NOT NULL,
    idx         INTEGER NOT NULL,
    -- Its input if the fleet has a template, else its request.
    task        TEXT NOT NULL,
    session_id  TEXT,
    -- Why the fleet ended or skipped it.
    ended_by    TEXT,
    -- Why it could not be started.
    fault       TEXT,
    PRIMARY KEY (org_id, fleet_id, idx),
    FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id)
) STRICT, WITHOUT ROWID;
