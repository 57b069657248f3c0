//! Capabilities against policy: what a backend cannot enforce is refused before anything starts.

use wire::{EgressMode, Enforcement, ExecMode, FieldError, Isolation, Language};

use crate::session::SessionSpec;

/// A backend's record of what it enforces, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its name, as requests and sessions show it.
    pub name: &'static str,
    /// What stands between a workload and the host.
    pub isolation: Isolation,
    /// Whether code is really executed; false for the simulator alone.
    pub executes: bool,
    /// Languages that its images offer.
    pub languages: Vec<Language>,
    /// Modes that it offers.
    pub exec_modes: Vec<ExecMode>,
    /// Names of the images that it can start; the first is the default.
    pub images: Vec<String>,
    /// The mechanism behind each part of the policy.
    pub enforcement: Enforcement,
    /// Whether an allowlist can be enforced: a gateway stands behind the sandbox's only way out.
    pub egress_allowlist: bool,
    /// What stands in `enforcement.egress` of a session that has a way out, if sessions can have one.
    pub egress_enforcement: Option<String>,
}

impl Capabilities {
    /// The mechanisms behind this session's policy.
    pub fn enforcement_of(&self, spec: &SessionSpec) -> Enforcement {
        let mut enforcement = self.enforcement.clone();
        if let Some(egress) = self.egress_enforcement.as_ref().filter(|_| spec.has_egress()) {
            enforcement.egress.clone_from(egress);
        }
        enforcement
    }

    /// Whether it can clone a repository: in a sandbox of its own, whose only way out is a gateway.
    pub fn clones(&self) -> bool {
        self.executes && self.egress_allowlist
    }

    /// Everything in the spec that this backend cannot enforce; empty when it may be admitted.
    pub fn unenforceable(&self, spec: &SessionSpec) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let name = self.name;
        if !self.languages.contains(&spec.language) {
            faults.push(FieldError::new(
                "language",
                format!("backend {name} has no image for {}", spec.language.as_str()),
            ));
        }
        if !self.exec_modes.contains(&spec.exec_mode) {
            faults.push(FieldError::new("execMode", format!("backend {name} does not run sessions in this mode")));
        }
        match spec.egress.mode {
            EgressMode::DenyAll => {}
            EgressMode::Allowlist if self.egress_allowlist => {}
            EgressMode::Allowlist => faults.push(FieldError::new(
                "egress.mode",
                format!(
                    "backend {name} has no gateway that could enforce an allowlist; only deny_all is enforced here"
                ),
            )),
        }
        if !spec.service_bindings.is_empty() && !self.egress_allowlist {
            let message = format!("backend {name} has no gateway that could add a secret");
            faults.push(FieldError::new("serviceBindings", message));
        }
        if spec.source.is_some() && !self.clones() {
            let why = if self.executes {
                "has no gateway to clone through"
            } else {
                "executes nothing, so it clones nothing"
            };
            faults.push(FieldError::new("source", format!("backend {name} {why}")));
        }
        if let Some(image) = &spec.image
            && !self.images.contains(image)
        {
            let known = self.images.join(", ");
            faults.push(FieldError::new("image", format!("is not an image of backend {name}; it has: {known}")));
        }
        faults
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::session::tests::spec;

    pub(crate) fn capabilities() -> Capabilities {
        Capabilities {
            name: "test",
            isolation: Isolation::Simulated,
            executes: false,
            languages: vec![Language::Python],
            exec_modes: vec![ExecMode::Oneshot],
            images: vec!["default".into()],
            enforcement: Enforcement {
                kernel: String::new(),
                egress: String::new(),
                cpu: String::new(),
                memory: String::new(),
                pids: String::new(),
                disk: String::new(),
                wall_clock: String::new(),
            },
            egress_allowlist: false,
            egress_enforcement: None,
        }
    }

    #[test]
    fn a_plain_session_is_admitted() {
        assert_eq!(capabilities().unenforceable(&spec()), []);
    }

    #[test]
    fn a_session_with_a_way_out_shows_what_enforces_that() {
        let offered = Capabilities { egress_enforcement: Some("a gateway".into()), ..capabilities() };
        let mut asked = spec();
        assert_eq!(offered.enforcement_of(&asked).egress, "");
        asked.egress.mode = EgressMode::Allowlist;
        assert_eq!(offered.enforcement_of(&asked).egress, "a gateway");
    }

    #[test]
    fn a_backend_never_admits_a_policy_that_it_cannot_enforce() {
        let mut asked = spec();
        asked.language = Language::Node;
        asked.exec_mode = ExecMode::Interactive;
        asked.egress.mode = EgressMode::Allowlist;
        asked.service_bindings = vec!["github".into()];
        asked.source = Some(repository());
        asked.image = Some("other".into());
        let fields: Vec<_> = capabilities().unenforceable(&asked).into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["language", "execMode", "egress.mode", "serviceBindings", "source", "image"]);
    }

    #[test]
    fn a_repository_needs_a_backend_that_executes_and_has_a_gateway() {
        let asked = SessionSpec { source: Some(repository()), ..spec() };
        for (executes, egress_allowlist, faults) in [(true, true, 0), (true, false, 1), (false, true, 1)] {
            let capabilities = Capabilities { executes, egress_allowlist, ..capabilities() };
            assert_eq!(capabilities.unenforceable(&asked).len(), faults);
        }
    }

    fn repository() -> crate::session::Repository {
        crate::session::Repository {
            url: "https://example.org/r".parse().unwrap(),
            reference: "main".into(),
            subpath: None,
            entrypoint: "a.py".into(),
            credential: None,
        }
    }
}
