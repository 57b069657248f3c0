CREATE TABLE bindings (
    org_id    TEXT NOT NULL REFERENCES orgs (id),
    id        TEXT NOT NULL,
    name      TEXT NOT NULL,
    -- Counts changes: a change names the revision that it was decided on.
    revision  INTEGER NOT NULL,
    body      TEXT NOT NULL,
    -- The secret, sealed under a key that is not in this database.
    sealed    BLOB NOT NULL,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, name)
) STRICT, WITHOUT ROWID;
