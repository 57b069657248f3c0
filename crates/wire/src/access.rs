//! Roles and scopes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member or key of an org may do, in four steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, and runs sessions.
    Developer,
    /// Manages bindings, keys and members.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    /// Every role, from least to most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Admin, Self::Owner];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a role: viewer, developer, admin or owner"))
    }
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// One thing that an operation requires of its caller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum Scope {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in JSON and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

scopes! {
    /// See sessions, their output and results.
    SessionsRead = "sessions:read",
    /// Start and stop sessions.
    SessionsWrite = "sessions:write",
    /// See triggers.
    TriggersRead = "triggers:read",
    /// Make, change and fire triggers.
    TriggersWrite = "triggers:write",
    /// See bindings, never their secrets.
    BindingsRead = "bindings:read",
    /// Make, change and rotate bindings.
    BindingsWrite = "bindings:write",
    /// Read the audit log.
    AuditRead = "audit:read",
    /// See keys, never their secrets.
    KeysRead = "keys:read",
    /// Make and revoke keys.
    KeysWrite = "keys:write",
    /// See members.
    MembersRead = "members:read",
    /// Add, change and remove members.
    MembersWrite = "members:write",
    /// Change or delete the org.
    OrgWrite = "org:write",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|scope| scope.as_str() == text).ok_or_else(|| format!("{text:?} is not a scope"))
    }
}
