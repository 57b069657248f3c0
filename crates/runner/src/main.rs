//! The init process of a sandbox: `enclave-runner --language python|node [--cgroup DIR] [--disk DIR] [--egress FD]`.
//!
//! It speaks [`protocol`] frames with the host on descriptors 0 and 1, starts the language host ahead of the session
//! as an unprivileged user, hands it the one program that it will run, carries the output, and ends the sandbox with
//! the program's first process. A backend starts it; nothing else does. Its own few lines for the operator go to
//! descriptor 2.
//!
//! One poll loop ([`supervise`]). Beside it a thread that puts files before the start ([`put`]), one for files from then on
//! ([`files`]), which opens terminals as well ([`terminals`]), and, where the sandbox has a way out, one that carries connections to the gateway ([`egress`]). None of them allocates what the workload could make
//! grow without bound.

mod args;
mod census;
mod control;
mod egress;
mod exec;
mod files;
mod filter;
mod hosts;
mod interpreter;
mod log;
mod outbox;
mod output;
mod processes;
mod put;
mod session;
mod setup;
mod supervise;
mod terminals;
mod turns;

use std::process::ExitCode;

use protocol::{GuestFrame, VERSION};

use crate::{args::Args, outbox::Outbox};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            log::line(&format!("{error}\n{}", args::USAGE));
            return ExitCode::from(2);
        }
    };
    if let Some(dir) = &args.write_snapshot {
        return match hosts::write_snapshot(args.language, dir) {
            Ok(path) => {
                println!("{}", path.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                log::line(&error.to_string());
                ExitCode::FAILURE
            }
        };
    }
    supervise(&args)
}

fn supervise(args: &Args) -> ExitCode {
    let mut outbox = Outbox::new();
    outbox.push(&GuestFrame::Hello { version: VERSION });
    let ready = setup::run(args).map_err(|error| error.to_string());
    // The host can go on while the interpreter starts.
    outbox.flush_some();
    let started = ready.and_then(|sandbox| supervise::start(args, sandbox).map_err(|error| error.to_string()));
    match started {
        Ok(supervisor) => supervisor.run(outbox),
        Err(message) => supervise::fault(outbox, message),
    }
}
