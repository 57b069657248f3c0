//! Who is asking, and what they may do.

use wire::{KeyId, OrgId, Role, Scope, TriggerId};

/// An authenticated identity. Made by the engine's authentication only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The org on whose behalf it acts; it can reach nothing of another.
    pub org: OrgId,
    /// Who it is, as audit events and sessions name it.
    pub subject: Subject,
    /// Its role in the org.
    pub role: Role,
    /// Scopes to which a key was narrowed; every scope of the role when none.
    pub narrowed: Option<Vec<Scope>>,
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An API key.
    Key(KeyId),
    /// Unauthenticated calls of the `dev` profile.
    Dev,
    /// A trigger, for the sessions that it starts.
    Trigger(TriggerId),
    /// A person at the machine itself, with the data directory in hand.
    Operator,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(id) => write!(f, "{id}"),
            Self::Dev => f.write_str("dev"),
            Self::Trigger(id) => write!(f, "{id}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

impl std::str::FromStr for Subject {
    type Err = wire::IdError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, wire::IdError> {
        match text {
            "dev" => Ok(Self::Dev),
            "operator" => Ok(Self::Operator),
            _ => text.parse().map(Self::Key).or_else(|_| text.parse().map(Self::Trigger)),
        }
    }
}

impl Caller {
    /// Whether the caller may do what requires `scope`: its role must have it, and so must its key.
    pub fn allows(&self, scope: Scope) -> bool {
        role_allows(self.role, scope) && self.narrowed.as_ref().is_none_or(|scopes| scopes.contains(&scope))
    }
}

/// The contract's table of roles.
pub fn role_allows(role: Role, scope: Scope) -> bool {
    let least = match scope {
        Scope::SessionsRead | Scope::TriggersRead | Scope::BindingsRead | Scope::AuditRead => Role::Viewer,
        Scope::SessionsWrite | Scope::TriggersWrite => Role::Developer,
        Scope::BindingsWrite | Scope::KeysWrite | Scope::KeysRead | Scope::MembersRead | Scope::MembersWrite => {
            Role::Admin
        }
        Scope::OrgWrite => Role::Owner,
    };
    role >= least
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn caller(role: Role, narrowed: Option<Vec<Scope>>) -> Caller {
        Caller { org: OrgId::from_uuid(Uuid::nil()), subject: Subject::Dev, role, narrowed }
    }

    #[test]
    fn a_subject_is_read_back_as_it_was_written() {
        for subject in [Subject::Dev, Subject::Operator, Subject::Key(KeyId::from_uuid(Uuid::nil()))] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!("root".parse::<Subject>().is_err());
    }

    #[test]
    fn roles_and_scopes_are_the_contracts_table() {
        let table: Vec<String> = Role::ALL
            .into_iter()
            .map(|role| {
                let scopes: Vec<_> =
                    Scope::ALL.iter().filter(|scope| role_allows(role, **scope)).map(|scope| scope.as_str()).collect();
                format!("{role}: {}", scopes.join(" "))
            })
            .collect();
        assert_eq!(
            table,
            [
                "viewer: sessions:read triggers:read bindings:read audit:read",
                "developer: sessions:read sessions:write triggers:read triggers:write bindings:read audit:read",
                "admin: sessions:read sessions:write triggers:read triggers:write bindings:read bindings:write \
                 audit:read keys:read keys:write members:read members:write",
                "owner: sessions:read sessions:write triggers:read triggers:write bindings:read bindings:write \
                 audit:read keys:read keys:write members:read members:write org:write",
            ]
        );
    }

    #[test]
    fn narrowing_takes_away_and_never_adds() {
        let narrowed = caller(Role::Viewer, Some(vec![Scope::SessionsWrite, Scope::SessionsRead]));
        assert!(narrowed.allows(Scope::SessionsRead));
        assert!(!narrowed.allows(Scope::SessionsWrite));
        assert!(!narrowed.allows(Scope::AuditRead));
    }
}
