CREATE TABLE turns (
    org_id      TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    number      INTEGER NOT NULL,
    -- One that has ended is never changed again.
    ended       INTEGER NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (org_id, session_id, number),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) STRICT;
