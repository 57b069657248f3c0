//! The backend against real gVisor sandboxes on this host. What a host lacks is a printed skip.

mod confinement;
mod crash;
mod honest;
mod lifecycle;
mod limits;
mod support;
