//! Identifiers: a prefix that names the kind, then a UUIDv7 in its usual text form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_<uuid>")]
pub struct IdError {
    /// The prefix that this kind of id has.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The prefix of the textual form, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps a UUID that the caller made; ids are time-ordered when it is a version 7.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The bare UUID.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Reads exactly the form that `Display` writes: one spelling per id.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { prefix: $prefix };
                let bare = text.strip_prefix(concat!($prefix, "_")).ok_or(error.clone())?;
                let uuid = Uuid::try_parse(bare).map_err(|_| error.clone())?;
                if uuid.as_hyphenated().to_string() == bare { Ok(Self(uuid)) } else { Err(error) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")))
                    .examples([concat!($prefix, "_01890a5d-ac96-774b-bcce-b302099a8057")])
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

ids! {
    /// A session.
    SessionId = "ses";
    /// An organisation: the owner of every row.
    OrgId = "org";
    /// A fleet.
    FleetId = "flt";
    /// A service binding.
    BindingId = "bnd";
    /// An API key (its public part).
    KeyId = "key";
    /// The delivery of one message to one receiver.
    DeliveryId = "whd";
    /// A trigger.
    TriggerId = "trg";
    /// A terminal of a session.
    TerminalId = "trm";
}

impl DeliveryId {
    /// The id of the message, as its receiver sees it in `webhook-id`: the same at each attempt.
    pub fn message_id(self) -> String {
        format!("msg_{}", self.0.as_simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "ses_01890a5d-ac96-774b-bcce-b302099a8057";
        let id: SessionId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        for other in [
            "SES_01890a5d-ac96-774b-bcce-b302099a8057",
            "ses_01890A5D-AC96-774B-BCCE-B302099A8057",
            "ses_01890a5dac96774bbcceb302099a8057",
            "ses_{01890a5d-ac96-774b-bcce-b302099a8057}",
            "org_01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "ses_",
            "",
            "ses_../../../etc/passwd",
        ] {
            assert!(other.parse::<SessionId>().is_err(), "{other} was accepted");
        }
    }
}
