//! Operations on triggers.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod fire;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod rotate;
pub(crate) mod runs;
pub(crate) mod update;
