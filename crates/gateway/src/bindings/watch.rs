//! The secrets that responses of one binding are watched for: the present ones, and some that were, for they may still be
//! on their way back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use model::secret::Secret;
use tokio::sync::watch;

use super::guard::Forms;

/// Credentials that are remembered.
const MAX_CREDENTIALS: usize = 4;

/// Tokens that are remembered. They last for minutes at least.
const MAX_TOKENS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    known: Mutex<Known>,
    forms: watch::Sender<Arc<Forms>>,
}

#[derive(Debug, Default)]
struct Known {
    credentials: VecDeque<Vec<Secret>>,
    tokens: VecDeque<Secret>,
}

/// They are too large to be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Watch {
    pub(super) fn new() -> Self {
        let forms = Forms::of([]).expect("an automaton for nothing is small");
        Self { known: Mutex::default(), forms: watch::Sender::new(Arc::new(forms)) }
    }

    /// From now on for these as well. Done before any of them is used.
    pub(super) fn credential(&self, secrets: Vec<Secret>) -> Result<(), TooLarge> {
        self.change(|known| {
            known.credentials.push_back(secrets);
            if known.credentials.len() > MAX_CREDENTIALS {
                known.credentials.pop_front();
            }
        })
    }

    /// From now on for this token as well.
    pub(super) fn token(&self, token: Secret) -> Result<(), TooLarge> {
        self.change(|known| {
            if !known.tokens.contains(&token) {
                known.tokens.push_back(token);
            }
            if known.tokens.len() > MAX_TOKENS {
                known.tokens.pop_front();
            }
        })
    }

    /// What to look for, now and later.
    pub(super) fn forms(&self) -> watch::Receiver<Arc<Forms>> {
        self.forms.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> Result<(), TooLarge> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let all = known.credentials.iter().flatten().chain(&known.tokens);
        let forms = Forms::of(all.map(|secret| secret.expose().as_bytes())).map_err(|_| TooLarge)?;
        self.forms.send_replace(Arc::new(forms));
        Ok(())
    }
}
