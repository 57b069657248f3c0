//! The REST API: one file per operation over the engine, and the HTTP server that carries it.
//!
//! The way of a request: [`serve`] bounds connections and heads, `front` gives it an id and writes its answer, `gate`
//! says who asks and whether they may, a handler in `routes` reads it strictly and calls the engine. The composition
//! root is the only caller. Neither the store nor backends are known here.

mod access;
mod attach;
mod body;
mod browser;
mod content;
mod examples;
mod failure;
mod front;
mod gate;
mod openapi;
mod query;
mod range;
mod router;
mod routes;
mod serve;
mod settings;
mod sse;
mod state;

pub use access::{Access, Operation};
pub use openapi::{openapi, openapi_json};
pub use router::router;
pub use serve::serve;
pub use settings::Settings;
