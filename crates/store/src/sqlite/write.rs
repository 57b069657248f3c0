//! The writer: one task, one connection, one transaction for everything that is queued.
//!
//! Each operation checks first and writes after, so that one that is refused (a session that is torn down, an idempotency
//! key in use) leaves nothing behind in the transaction that it shares with others. An error of the database itself ends
//! the whole transaction, and every operation in it is told.

mod batch;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use model::audit::Draft;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use wire::{AuditEvent, KeyId, OrgId, SessionId, TriggerRun};

pub(crate) use self::batch::DeliveryChange;
use self::batch::{Batch, Outcome, Refused};
use super::BUSY;
use crate::{
    BindingChange, BindingError, Claim, Claimed, CreateError, Created, CreatedFleet, FleetChange, KeyRecord,
    MemberError, NewFleet, NewSession, NotFired, Old, Org, Seat, StoreError, TriggerChange, TriggerError, TurnRecord,
    Unstarted, Update, UpdateError, WebhookSecretRecord, error::is_busy,
};

/// Operations that wait for the writer; more wait to be queued.
const QUEUE: usize = 1024;
/// Operations in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 256;

/// A gap between two transactions, and the time between two looks for one. SQLite knows no queue of processes: without gaps
/// another one on the file (`enclave key`, say) would hardly ever find it free.
const BREATH: Duration = Duration::from_millis(1);
/// How long transactions may follow one another without a gap.
const HELD_BREATH: Duration = Duration::from_millis(40);

pub(super) type Reply<T> = oneshot::Sender<T>;

/// Something to write.
pub(super) enum Operation {
    Create {
        org: OrgId,
        new: Box<NewSession>,
        reply: Reply<Result<Created, CreateError>>,
    },
    Update {
        org: OrgId,
        update: Box<Update>,
        reply: Reply<Result<Vec<AuditEvent>, UpdateError>>,
    },
    Turn {
        org: OrgId,
        record: Box<TurnRecord>,
        reply: Reply<Result<Vec<AuditEvent>, UpdateError>>,
    },
    Append {
        org: OrgId,
        drafts: Vec<Draft>,
        reply: Reply<Result<Vec<AuditEvent>, StoreError>>,
    },
    CreateKey {
        org: OrgId,
        key: Box<KeyRecord>,
        draft: Box<Draft>,
        reply: Reply<Result<(), StoreError>>,
    },
    RevokeKey {
        org: OrgId,
        id: KeyId,
        draft: Box<Draft>,
        reply: Reply<Result<bool, StoreError>>,
    },
    Binding {
        org: OrgId,
        change: Box<BindingChange>,
        reply: Reply<Result<(), BindingError>>,
    },
    EnsureOrg {
        org: Org,
        reply: Reply<Result<Org, StoreError>>,
    },
    Forget {
        old: Old,
        reply: Reply<Result<u64, StoreError>>,
    },
    ClaimDeliveries {
        claim: Claim,
        reply: Reply<Result<Vec<Claimed>, StoreError>>,
    },
    Delivery {
        org: OrgId,
        change: Box<DeliveryChange>,
        reply: Reply<Result<bool, StoreError>>,
    },
    Trigger {
        org: OrgId,
        change: Box<TriggerChange>,
        reply: Reply<Result<(), TriggerError>>,
    },
    Unstarted {
        org: OrgId,
        unstarted: Box<Unstarted>,
        reply: Reply<Result<TriggerRun, NotFired>>,
    },
    WebhookSecret {
        org: OrgId,
        record: Box<WebhookSecretRecord>,
        drafts: Vec<Draft>,
        reply: Reply<Result<bool, StoreError>>,
    },
    CreateFleet {
        org: OrgId,
        new: Box<NewFleet>,
        reply: Reply<Result<CreatedFleet, CreateError>>,
    },
    CreateMember {
        org: OrgId,
        seat: Seat,
        new: Box<NewSession>,
        reply: Reply<Result<Vec<AuditEvent>, MemberError>>,
    },
    Fleet {
        org: OrgId,
        change: Box<FleetChange>,
        reply: Reply<Result<(), StoreError>>,
    },
    ForgetArtifacts {
        org: OrgId,
        session: SessionId,
        reply: Reply<Result<u64, StoreError>>,
    },
}

/// The way to the writer task.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Operation>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts on this connection; with `options`, another is made when it fails.
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let (queue, operations) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(Some(connection), options, operations));
        Self { queue: Mutex::new(Some(queue)), task: Mutex::new(Some(task)) }
    }

    /// Queues an operation and waits for what became of it. Once it is queued it is carried out, whether or not anybody
    /// still waits.
    pub(super) async fn submit<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Result<T, StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(operation(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Writes out what is queued, and takes nothing more.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the database writer ended badly");
        }
    }
}

async fn run(
    mut connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    mut operations: mpsc::Receiver<Operation>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut breathed = Instant::now();
    while operations.recv_many(&mut batch, BATCH).await > 0 {
        write(&mut connection, &options, &mut batch).await;
        if operations.is_empty() {
            breathed = Instant::now();
        } else if breathed.elapsed() >= HELD_BREATH {
            tokio::time::sleep(BREATH).await;
            breathed = Instant::now();
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::error!(%error, "the database was not closed cleanly");
    }
}

async fn write(connection: &mut Option<SqliteConnection>, options: &SqliteConnectOptions, batch: &mut Vec<Operation>) {
    let attempted = match connection {
        Some(connection) => attempt(connection, batch).await,
        None => match options.connect().await {
            Ok(new) => attempt(connection.insert(new), batch).await,
            Err(error) => Err(error),
        },
    };
    match attempted {
        Ok(answers) => {
            batch.clear();
            for answer in answers {
                answer();
            }
        }
        Err(error) => {
            // After some errors (a full disk is one) SQLite has ended the transaction by itself, and the connection does
            // not know in which state it is. Closing it takes back whatever was begun.
            if let Some(connection) = connection.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "a failed connection was not closed cleanly");
            }
            let error = Arc::new(error);
            tracing::error!(%error, operations = batch.len(), "a transaction failed; nothing of it was written");
            for operation in batch.drain(..) {
                operation.fail(&error);
            }
        }
    }
}

/// Sends an answer; called after the commit.
type Answer = Box<dyn FnOnce() + Send>;

/// Begins a transaction, once no other process is in one. Looks again more often than SQLite would, so as to find the gap
/// that a busy writer leaves.
async fn begin(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + BUSY;
    loop {
        match sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(BREATH).await,
            other => return other.map(drop),
        }
    }
}

/// A transaction. One that fails is taken back by the caller, who closes the connection.
async fn attempt(connection: &mut SqliteConnection, batch: &mut Vec<Operation>) -> Result<Vec<Answer>, sqlx::Error> {
    begin(connection).await?;
    let mut work = Batch::new(connection);
    let mut outcomes = Vec::with_capacity(batch.len());
    for operation in batch.iter() {
        outcomes.push(work.carry_out(operation).await?);
    }
    work.commit().await?;
    Ok(batch.drain(..).zip(outcomes).map(|(operation, outcome)| operation.answer(outcome)).collect())
}

impl Operation {
    /// Pairs the outcome with whoever waits for it.
    fn answer(self, outcome: Outcome) -> Answer {
        // A caller that has gone away is no fault: what it asked for was written.
        match (self, outcome) {
            (Self::Create { reply, .. }, Outcome::Created(made)) => Box::new(move || {
                let _ = reply.send(made.map_err(|refused| match refused {
                    Refused::IdempotencyConflict => CreateError::IdempotencyConflict,
                    Refused::NotFired(refused) => CreateError::NotFired(refused),
                    other @ (Refused::UnknownOrg
                    | Refused::NotLive
                    | Refused::Foreign
                    | Refused::Taken(_)
                    | Refused::Unsealable(_)
                    | Refused::Corrupt(_)) => other.store().into(),
                }));
            }),
            (Self::Update { update, reply, .. }, Outcome::Events(events)) => Box::new(move || {
                let _ = reply.send(events.map_err(|refused| refused.update(update.session.id)));
            }),
            (Self::Turn { record, reply, .. }, Outcome::Events(events)) => Box::new(move || {
                let _ = reply.send(events.map_err(|refused| refused.update(record.turn.session_id)));
            }),
            (Self::Append { reply, .. }, Outcome::Events(events)) => Box::new(move || {
                let _ = reply.send(events.map_err(Refused::store));
            }),
            (Self::CreateKey { reply, .. }, Outcome::Done(done)) => Box::new(move || {
                let _ = reply.send(done.map_err(Refused::store));
            }),
            (Self::RevokeKey { reply, .. }, Outcome::Revoked(revoked)) => Box::new(move || {
                let _ = reply.send(revoked.map_err(Refused::store));
            }),
            (Self::Binding { reply, .. }, Outcome::Binding(changed)) => Box::new(move || {
                let _ = reply.send(changed);
            }),
            (Self::CreateFleet { reply, .. }, Outcome::Fleet(made)) => Box::new(move || {
                let _ = reply.send(made);
            }),
            (Self::CreateMember { reply, .. }, Outcome::Member(made)) => Box::new(move || {
                let _ = reply.send(made);
            }),
            (Self::Fleet { reply, .. }, Outcome::FleetChanged(changed)) => Box::new(move || {
                let _ = reply.send(changed);
            }),
            (Self::Trigger { reply, .. }, Outcome::Trigger(changed)) => Box::new(move || {
                let _ = reply.send(changed);
            }),
            (Self::Unstarted { reply, .. }, Outcome::Run(run)) => Box::new(move || {
                let _ = reply.send(run);
            }),
            (Self::EnsureOrg { reply, .. }, Outcome::Org(org)) => Box::new(move || {
                let _ = reply.send(org.map_err(Refused::store));
            }),
            (Self::Forget { reply, .. } | Self::ForgetArtifacts { reply, .. }, Outcome::Count(count)) => {
                Box::new(move || {
                    let _ = reply.send(Ok(count));
                })
            }
            (Self::ClaimDeliveries { reply, .. }, Outcome::Claimed(claimed)) => Box::new(move || {
                let _ = reply.send(Ok(claimed));
            }),
            (Self::Delivery { reply, .. } | Self::WebhookSecret { reply, .. }, Outcome::Changed(changed)) => {
                Box::new(move || {
                    let _ = reply.send(changed.map_err(Refused::store));
                })
            }
            (
                Self::Create { .. }
                | Self::Update { .. }
                | Self::Turn { .. }
                | Self::Append { .. }
                | Self::CreateKey { .. }
                | Self::RevokeKey { .. }
                | Self::Binding { .. }
                | Self::CreateFleet { .. }
                | Self::CreateMember { .. }
                | Self::Fleet { .. }
                | Self::EnsureOrg { .. }
                | Self::Forget { .. }
                | Self::ClaimDeliveries { .. }
                | Self::Delivery { .. }
                | Self::Trigger { .. }
                | Self::Unstarted { .. }
                | Self::WebhookSecret { .. }
                | Self::ForgetArtifacts { .. },
                Outcome::Created(_)
                | Outcome::Events(_)
                | Outcome::Done(_)
                | Outcome::Revoked(_)
                | Outcome::Binding(_)
                | Outcome::Fleet(_)
                | Outcome::Member(_)
                | Outcome::FleetChanged(_)
                | Outcome::Org(_)
                | Outcome::Count(_)
                | Outcome::Claimed(_)
                | Outcome::Changed(_)
                | Outcome::Trigger(_)
                | Outcome::Run(_),
            ) => unreachable!("`carry_out` gives each operation its own kind of outcome"),
        }
    }

    fn fail(self, error: &Arc<sqlx::Error>) {
        let error = StoreError::Database(Arc::clone(error));
        match self {
            Self::Create { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::Update { reply, .. } | Self::Turn { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::CreateKey { reply, .. } | Self::Fleet { reply, .. } => drop(reply.send(Err(error))),
            Self::Binding { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::CreateFleet { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::CreateMember { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::EnsureOrg { reply, .. } => drop(reply.send(Err(error))),
            Self::Forget { reply, .. } | Self::ForgetArtifacts { reply, .. } => drop(reply.send(Err(error))),
            Self::ClaimDeliveries { reply, .. } => drop(reply.send(Err(error))),
            Self::Trigger { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::Unstarted { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::RevokeKey { reply, .. } | Self::Delivery { reply, .. } | Self::WebhookSecret { reply, .. } => {
                drop(reply.send(Err(error)));
            }
        }
    }
}
