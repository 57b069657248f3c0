//! Operations on sessions.

pub(crate) mod audit;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod form;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod result;
pub(crate) mod stream;
pub(crate) mod turns;
