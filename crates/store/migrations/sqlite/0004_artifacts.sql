-- Files that sessions left and that are kept. Their content is elsewhere, under the session and the number.
CREATE TABLE artifacts (
    org_id     TEXT NOT NULL REFERENCES orgs (id),
    session_id TEXT NOT NULL,
    path       TEXT NOT NULL,
    number     INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (org_id, session_id, path),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX artifacts_of_session ON artifacts (session_id);
