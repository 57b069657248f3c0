//! The backend against real gVisor sandboxes on this host. What a host lacks is a printed skip.

mod honest;
mod limits;
mod support;
