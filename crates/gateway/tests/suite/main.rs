//! The gateway as it is, over real sockets: the tests are the runner, the server, the resolver and the outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod captured;
mod dns;
mod hostile;
mod life;
mod limits;
mod proxy;
mod resolver;
mod smuggling;
mod socks;
mod speed;
mod tls;
mod upstream;
mod world;
