//! Operations on artifacts.

pub(crate) mod get;
pub(crate) mod list;
