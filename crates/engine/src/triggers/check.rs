//! Whether what a trigger is to start would be taken now: whoever makes it is told every fault, not the first firing.

use model::{
    access::Caller,
    session::{Refusal, SessionSpec},
};
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
        let refused = match self.check_session(caller, session.clone(), own).await {
            Ok(()) if others.is_empty() => return Ok(()),
            Ok(()) => return Err(TriggerError::Invalid(others)),
            Err(refused) => refused,
        };
        let below = |faults: Vec<FieldError>| -> Vec<FieldError> {
            faults
                .into_iter()
                .map(|fault| FieldError::new(format!("{SESSION}.{}", fault.field), fault.message))
                .collect()
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

    /// Whether a session would be taken, apart from whether there is room for it. Records nothing.
    async fn check_session(
        &self,
        caller: &Caller,
        request: CreateSession,
        shape: Vec<FieldError>,
    ) -> Result<(), CreateError> {
        let inner = &self.inner;
        let known: Vec<_> = inner.backends.iter().map(|backend| backend.capabilities().name).collect();
        let decided = SessionSpec::decide(request, shape, &inner.config.maxima, &known);
        let mut spec = decided.map_err(|refusal| match refusal {
            Refusal::Invalid(faults) => CreateError::Invalid(faults),
            Refusal::NotSupported(faults) => CreateError::NotSupported(faults),
        })?;
        let backend = self.backend_for(&spec);
        let faults = backend.capabilities().unenforceable(&spec);
        if !faults.is_empty() {
            return Err(CreateError::NotEnforceable { backend: backend.capabilities().name, faults });
        }
        self.name_bindings(caller, &mut spec).await?;
        let source = self.source_fault(caller, &spec).await?;
        let faults: Vec<_> = source.into_iter().chain(self.webhook_fault(&spec)).collect();
        if faults.is_empty() { Ok(()) } else { Err(CreateError::Invalid(faults)) }
    }
}

/// The name of a fault's field inside the session, if it is there.
fn inside(fault: &FieldError) -> Option<&str> {
    fault.field.strip_prefix(SESSION)?.strip_prefix('.')
}
