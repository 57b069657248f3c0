//! Time and randomness: the only places of this crate that read either.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::{Builder, Uuid};
use wire::{BindingId, DeliveryId, FleetId, KeyId, OrgId, SessionId, TerminalId, Timestamp, TriggerId};

/// Tells the time of day. Durations are tokio's, which tests pause and move.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The host's clock.
    System,
    /// A fixed beginning plus tokio's time since: moves only as a paused runtime is moved.
    Manual {
        /// Time of day at `start`.
        base: Timestamp,
        /// When the clock was made.
        start: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that starts at 2026-01-01T00:00:00Z and moves with tokio's time.
    pub fn manual() -> Self {
        Self::Manual { base: Timestamp::from_millis(1_767_225_600_000), start: tokio::time::Instant::now() }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
            Self::Manual { base, start } => {
                let elapsed = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(base.as_millis().saturating_add(elapsed))
            }
        }
    }
}

/// Makes ids and secrets.
#[derive(Clone, Debug)]
pub struct Ids {
    rng: Arc<Mutex<StdRng>>,
}

impl Ids {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self { rng: Arc::new(Mutex::new(rand::make_rng())) }
    }

    /// Seeded by the caller, for tests: the same seed and clock give the same ids.
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0_u8; N];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }

    fn v7(&self, clock: &Clock) -> Uuid {
        let millis = u64::try_from(clock.now().as_millis()).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &self.bytes::<10>()).into_uuid()
    }

    /// A session's id.
    pub fn session(&self, clock: &Clock) -> SessionId {
        SessionId::from_uuid(self.v7(clock))
    }

    /// A fleet's id.
    pub fn fleet(&self, clock: &Clock) -> FleetId {
        FleetId::from_uuid(self.v7(clock))
    }

    /// An org's id.
    pub fn org(&self, clock: &Clock) -> OrgId {
        OrgId::from_uuid(self.v7(clock))
    }

    /// A binding's id.
    pub fn binding(&self, clock: &Clock) -> BindingId {
        BindingId::from_uuid(self.v7(clock))
    }

    /// A trigger's id.
    pub fn trigger(&self, clock: &Clock) -> TriggerId {
        TriggerId::from_uuid(self.v7(clock))
    }

    /// A terminal's id.
    pub fn terminal(&self, clock: &Clock) -> TerminalId {
        TerminalId::from_uuid(self.v7(clock))
    }

    /// A delivery's id.
    pub fn delivery(&self, clock: &Clock) -> DeliveryId {
        DeliveryId::from_uuid(self.v7(clock))
    }

    /// A key's public id.
    pub fn key(&self, clock: &Clock) -> KeyId {
        KeyId::from_uuid(self.v7(clock))
    }
}
