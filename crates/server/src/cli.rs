//! The command line.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::{audit, binding, demo, doctor, file, fleet, gateway, image, key, run, serve, shell, terminal, trigger};

/// Threads of the commands that are not servers.
const THREADS: usize = 2;

/// Runs untrusted programs in sandboxes.
///
/// Each program gets a sandbox of its own with hard limits, no network, and an audit trail; when it ends, nothing of it
/// is left. `enclave serve` offers that as a REST API, `enclave run` for one program on the command line.
#[derive(Debug, Parser)]
#[command(name = "enclave", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the REST API
    Serve(serve::ServeArgs),
    /// Run one program, and leave with its exit code
    Run(Box<run::RunArgs>),
    /// Hold a conversation with a sandbox: code goes in, values and pictures come out
    Shell(Box<shell::ShellArgs>),
    /// Use a terminal in a sandbox: a real shell, or any program that wants one
    Terminal(Box<terminal::TerminalArgs>),
    /// Run one program many times, with an input each
    Fleet(Box<fleet::FleetArgs>),
    /// List, get, put and remove files of a session that runs
    Files(file::FilesArgs),
    /// List and get the files that a session has left
    Artifacts(file::ArtifactsArgs),
    /// Run hostile and honest programs, and show what becomes of them
    Demo(demo::DemoArgs),
    /// Say what this host can enforce, tried for real
    Doctor(doctor::DoctorArgs),
    /// Build and list the root file systems of sandboxes
    Image(image::ImageArgs),
    /// Make, list and revoke API keys, in the data directory
    Key(key::KeyArgs),
    /// Make, list, rotate and delete service bindings
    Binding(binding::BindingArgs),
    /// Make, list, fire, pause and delete triggers
    Trigger(trigger::TriggerArgs),
    /// Check the audit log, in the data directory
    Audit(audit::AuditArgs),
    #[command(hide = true)]
    Gateway(gateway::GatewayArgs),
    /// Print the OpenAPI document of the REST API
    Openapi,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command, in roff: enclave man | man -l -
    Man {
        /// The command, `key create` for example
        command: Vec<String>,
    },
    /// Print the version
    Version,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Run(args) => on_runtime(run::run(*args)),
            Command::Shell(args) => on_runtime(shell::run(*args)),
            Command::Terminal(args) => on_runtime(terminal::run(*args)),
            Command::Fleet(args) => on_runtime(fleet::run(*args)),
            Command::Files(args) => on_runtime(file::files(args)),
            Command::Artifacts(args) => on_runtime(file::artifacts(args)),
            Command::Demo(args) => on_runtime(demo::run(args)),
            Command::Doctor(args) => on_runtime(doctor::run(args)),
            Command::Image(args) => on_runtime(image::run(args)),
            Command::Key(args) => on_runtime(key::run(args)),
            Command::Binding(args) => on_runtime(binding::run(args)),
            Command::Trigger(args) => on_runtime(trigger::run(args)),
            Command::Audit(args) => on_runtime(audit::run(args)),
            Command::Gateway(args) => gateway::run(&args),
            Command::Openapi => print(api::openapi_json().as_bytes()),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "enclave", &mut script);
                print(&script)
            }
            Command::Man { command } => print(&manual(&command)?),
            Command::Version => print(format!("enclave {}\n", env!("CARGO_PKG_VERSION")).as_bytes()),
        }
    }
}

fn on_runtime(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let code = runtime.block_on(task);
    // A thread that reads a terminal or resolves a name is not waited for.
    runtime.shutdown_background();
    code
}

fn manual(path: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut found = &command;
    for name in path {
        found = found.find_subcommand(name).with_context(|| format!("there is no command {name:?}"))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(found.clone()).render(&mut page).context("the page cannot be rendered")?;
    Ok(page)
}

/// A reader that has had enough (`| head`) is no failure.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let mut command = Cli::command();
        command.build();
        for sub in command.get_subcommands() {
            assert!(!manual(&[sub.get_name().to_owned()]).unwrap().is_empty());
        }
        assert!(manual(&["nothing".into()]).is_err());
    }
}
