//! Whether what a trigger is to start would be taken now: whoever makes it is told every fault, not the first firing.

use model::access::Caller;
use wire::{CreateSession, FieldError};

use crate::{CreateError, Engine, TriggerError};

/// Where the session's own fields are in a request about a trigger.
const SESSION: &str = "session";

impl Engine {
    /// Decides on the session of a trigger. `shape` is what could not be read of the whole request, `faults` is what is
    /// wrong with the rest of it; all faults are told together.
    pub(super) async fn check_trigger_session(
        &self,
        caller: &Caller,
        session: &CreateSession,
        shape: Vec<FieldError>,
        faults: Vec<FieldError>,
    ) -> Result<(), TriggerError> {
        let (of_session, mut others): (Vec<_>, Vec<_>) = shape.into_iter().partition(|fault| inside(fault).is_some());
        // What could not be read has one fault, not two.
        let misread = |fault: &FieldError| others.iter().any(|other| other.field == fault.field);
        let faults: Vec<_> = faults.into_iter().filter(|fault| !misread(fault)).collect();
        others.extend(faults);
        if others.iter().any(|fault| fault.field == SESSION) {
            return Err(TriggerError::Invalid(others));
        }
        let own = of_session.iter().filter_map(|fault| Some(FieldError::new(inside(fault)?, &fault.message))).collect();
        let refused = match self.judge(caller, session.clone(), &[], own).await.map(drop) {
            Ok(()) if others.is_empty() => return Ok(()),
            Ok(()) => return Err(TriggerError::Invalid(others)),
            Err(refused) => refused,
        };
        let below = |faults: Vec<FieldError>| -> Vec<FieldError> {
            faults.into_iter().map(|fault| fault.under(SESSION)).collect()
        };
        Err(match refused {
            CreateError::Invalid(faults) => TriggerError::Invalid(others.into_iter().chain(below(faults)).collect()),
            _ if !others.is_empty() => TriggerError::Invalid(others),
            CreateError::NotSupported(faults) => TriggerError::Session(CreateError::NotSupported(below(faults))),
            CreateError::NotEnforceable { backend, faults } => {
                TriggerError::Session(CreateError::NotEnforceable { backend, faults: below(faults) })
            }
            other @ (CreateError::Busy { .. }
            | CreateError::Sealed { .. }
            | CreateError::Draining
            | CreateError::IdempotencyConflict
            | CreateError::NotFired(_)
            | CreateError::Store(_)) => TriggerError::Session(other),
        })
    }
}

/// The name of a fault's field inside the session, if it is there.
fn inside(fault: &FieldError) -> Option<&str> {
    fault.field.strip_prefix(SESSION)?.strip_prefix('.')
}
