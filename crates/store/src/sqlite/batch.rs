//! One transaction: the rows that decide, read at its start; the rows to write, collected; and two round trips.
//!
//! Every statement costs a hop to the connection's thread and back, so a transaction is two texts of several statements
//! each: [`LOAD`] and [`STORE`]. Rows travel as JSON arrays, one array of arrays per table.

use std::collections::HashMap;

use model::audit::{Draft, Head, canonical_event};
use serde::Serialize;
use sqlx::{Row as _, sqlite::SqliteConnection, sqlite::SqliteRow};
use wire::{AuditEvent, OrgId, Phase, SessionId};

use super::write::Wants;

/// Which org, which session, and which key a row is about is its index in the parameter.
const LOAD: &str = "
BEGIN IMMEDIATE;

SELECT 'org' AS kind, wanted.key AS place, coalesce(head.seq, 0) AS seq, head.hash AS hash
FROM json_each(?1) wanted
CROSS JOIN orgs org ON org.id = wanted.value
LEFT JOIN audit_heads head ON head.org_id = org.id;

SELECT 'session' AS kind, wanted.key AS place, session.phase = 'torn_down' AS final
FROM json_each(?2) wanted
CROSS JOIN sessions session ON session.org_id = wanted.value ->> 0 AND session.id = wanted.value ->> 1;

SELECT 'key' AS kind, wanted.key AS place, earlier.digest AS digest, session.body AS body
FROM json_each(?3) wanted
CROSS JOIN idempotency earlier ON earlier.org_id = wanted.value ->> 0 AND earlier.key = wanted.value ->> 1
CROSS JOIN sessions session ON session.org_id = earlier.org_id AND session.id = earlier.session_id;
";

/// `WHERE true` tells SQLite's parser that `ON` does not belong to a join.
const STORE: &str = "
INSERT INTO sessions (org_id, id, phase, created_ms, sandbox, body)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) WHERE true
ON CONFLICT (org_id, id) DO UPDATE
SET phase = excluded.phase, sandbox = coalesce(excluded.sandbox, sandbox), body = excluded.body;

INSERT INTO session_labels (org_id, key, value, session_id)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?2);

INSERT INTO results (org_id, session_id, body, value)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?3) WHERE true
ON CONFLICT (org_id, session_id) DO UPDATE SET body = excluded.body, value = excluded.value;

INSERT INTO idempotency (org_id, key, digest, session_id, created_ms)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?4);

INSERT INTO outbox (org_id, session_id, topic, payload)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?5);

INSERT INTO audit (org_id, seq, session_id, canonical, hash)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?6);

INSERT INTO audit_heads (org_id, seq, hash)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?7) WHERE true
ON CONFLICT (org_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;

COMMIT;
";

/// A transaction under way.
pub(super) struct Batch<'c> {
    connection: &'c mut SqliteConnection,
    orgs: HashMap<OrgId, Head>,
    sessions: HashMap<(OrgId, SessionId), Life>,
    keys: HashMap<(OrgId, String), Earlier>,
    rows: Rows,
}

/// Whether a session that is there may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It may.
    Live,
    /// It may not.
    TornDown,
}

impl From<Phase> for Life {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::TornDown => Self::TornDown,
            Phase::Pending
            | Phase::Running
            | Phase::Paused
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Killed => Self::Live,
        }
    }
}

/// The request that used an idempotency key first.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    /// SHA-256 of the request.
    pub(super) digest: String,
    /// The session that it made, JSON.
    pub(super) body: String,
}

/// A session to insert or update.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SessionRow(
    pub(super) OrgId,
    pub(super) SessionId,
    /// Phase.
    pub(super) &'static str,
    /// When it was created.
    pub(super) i64,
    /// Sandbox; absent leaves what is there.
    pub(super) Option<String>,
    /// Body.
    pub(super) String,
);

/// Rows to write, in the order of their columns in [`STORE`].
#[derive(Default)]
struct Rows {
    sessions: Vec<SessionRow>,
    labels: Vec<(OrgId, String, String, SessionId)>,
    results: Vec<(OrgId, SessionId, String, Option<String>)>,
    idempotency: Vec<(OrgId, String, String, SessionId, i64)>,
    outbox: Vec<(OrgId, SessionId, String, String)>,
    audit: Vec<(OrgId, u64, Option<SessionId>, String, String)>,
}

impl<'c> Batch<'c> {
    /// Begins the transaction and reads what decides.
    pub(super) async fn begin(connection: &'c mut SqliteConnection, wants: &Wants) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query(LOAD)
            .bind(json(&wants.orgs))
            .bind(json(&wants.sessions))
            .bind(json(&wants.keys))
            .fetch_all(&mut *connection)
            .await?;
        let mut batch = Self {
            connection,
            orgs: HashMap::new(),
            sessions: HashMap::new(),
            keys: HashMap::new(),
            rows: Rows::default(),
        };
        for row in &rows {
            batch.load(row, wants)?;
        }
        Ok(batch)
    }

    fn load(&mut self, row: &SqliteRow, wants: &Wants) -> Result<(), sqlx::Error> {
        let place: u32 = row.try_get("place")?;
        let place = place as usize;
        match row.try_get("kind")? {
            "org" => {
                let head = match row.try_get("hash")? {
                    Some(hash) => Head { seq: row.try_get("seq")?, hash },
                    None => Head::default(),
                };
                self.orgs.insert(wants.orgs[place], head);
            }
            "session" => {
                let life = if row.try_get("final")? { Life::TornDown } else { Life::Live };
                self.sessions.insert(wants.sessions[place], life);
            }
            _ => {
                let earlier = Earlier { digest: row.try_get("digest")?, body: row.try_get("body")? };
                self.keys.insert(wants.keys[place].clone(), earlier);
            }
        }
        Ok(())
    }

    /// The connection, inside the transaction, for writes that are rare enough for statements of their own.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    /// Whether the org is there, for writes that asked for it.
    pub(super) fn has_org(&self, org: OrgId) -> bool {
        self.orgs.contains_key(&org)
    }

    /// Whether the session is there, as the writes before this one in the transaction leave it.
    pub(super) fn life(&self, org: OrgId, id: SessionId) -> Option<Life> {
        self.sessions.get(&(org, id)).copied()
    }

    /// Who used the idempotency key.
    pub(super) fn earlier(&self, org: OrgId, key: &str) -> Option<&Earlier> {
        self.keys.get(&(org, key.to_owned()))
    }

    /// Inserts or updates a session.
    pub(super) fn put_session(&mut self, row: &SessionRow, life: Life) {
        self.sessions.insert((row.0, row.1), life);
        self.rows.sessions.push(row.clone());
    }

    /// Labels a new session.
    pub(super) fn put_label(&mut self, org: OrgId, id: SessionId, key: &str, value: &str) {
        self.rows.labels.push((org, key.to_owned(), value.to_owned(), id));
    }

    /// Notes which session an idempotency key made.
    pub(super) fn put_key(&mut self, org: OrgId, key: &str, earlier: Earlier, id: SessionId, created_ms: i64) {
        self.rows.idempotency.push((org, key.to_owned(), earlier.digest.clone(), id, created_ms));
        self.keys.insert((org, key.to_owned()), earlier);
    }

    /// Records a result: the view without the workload's value, and the value.
    pub(super) fn put_result(&mut self, org: OrgId, id: SessionId, body: &str, value: Option<&str>) {
        self.rows.results.push((org, id, body.to_owned(), value.map(ToOwned::to_owned)));
    }

    /// Leaves a message.
    pub(super) fn put_message(&mut self, org: OrgId, id: SessionId, topic: &str, payload: &str) {
        self.rows.outbox.push((org, id, topic.to_owned(), payload.to_owned()));
    }

    /// Gives the events their places at the end of the org's chain. The org must be there.
    pub(super) fn seal(&mut self, org: OrgId, drafts: &[Draft]) -> Vec<AuditEvent> {
        let head = self.orgs.get_mut(&org).expect("the caller looked for the org");
        let seal = |draft: &Draft| {
            let event = head.seal(org, draft.clone());
            let canonical = canonical_event(&event);
            self.rows.audit.push((org, event.seq, event.session_id, canonical, event.hash.clone()));
            event
        };
        drafts.iter().map(seal).collect()
    }

    /// Writes what was collected, and commits.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let heads: Vec<_> = self
            .orgs
            .iter()
            .filter(|(_, head)| head.seq > 0)
            .map(|(org, head)| (org, head.seq, &head.hash))
            .collect();
        sqlx::query(STORE)
            .bind(json(&self.rows.sessions))
            .bind(json(&self.rows.labels))
            .bind(json(&self.rows.results))
            .bind(json(&self.rows.idempotency))
            .bind(json(&self.rows.outbox))
            .bind(json(&self.rows.audit))
            .bind(json(&heads))
            .execute(self.connection)
            .await?;
        Ok(())
    }
}

fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).expect("rows of text and numbers are JSON")
}
