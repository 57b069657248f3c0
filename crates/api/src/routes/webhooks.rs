//! Operations on webhooks out: the log of deliveries, and the secret that messages are signed with.

pub(crate) mod list;
pub(crate) mod retry;
pub(crate) mod rotate;
pub(crate) mod secret;
