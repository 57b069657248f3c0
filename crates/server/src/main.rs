//! `enclave`: the server, and the commands around it.
//!
//! The composition root: nothing here decides what a session may do. [`settings`] reads the configuration, [`platform`]
//! puts store, backend and engine together, [`serve`] and [`embedded`] put the API in front of them. Everything that
//! talks to a server, this program's own commands included, goes through `client`.

mod artifact_store;
mod audit;
mod backends;
mod binding;
mod cli;
mod courier;
mod data_dir;
mod demo;
mod doctor;
mod embedded;
mod file;
mod fleet;
mod gateway;
mod image;
mod key;
mod logging;
mod metrics;
mod platform;
mod process;
mod remote;
mod run;
mod secrets;
mod serve;
mod settings;
mod shell;
mod signals;
mod terminal;
mod trigger;
mod venue;

use std::process::ExitCode;

use clap::Parser;

use crate::settings::ConfigError;

/// Small objects by the thousand, from many threads: what the system's allocator keeps after a burst is several times as
/// much. Without huge pages, which made an idle server twice as large.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("enclave: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
