//! `enclave run`: one program, from the command line to its exit code.

pub(crate) mod artifacts;
pub(crate) mod exit;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod screen;
pub(crate) mod terminal;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use client::{Client, ClientError, Retry};
use futures::StreamExt;
use wire::{Chunk, Session, SessionId, SessionResult, StreamFrame};

use crate::{
    embedded::{Embedded, EmbeddedOptions},
    run::{
        request::{Asked, ProgramArgs},
        screen::{Closed, Form, Screen, Stream},
    },
    settings::ConfigError,
    signals::Signals,
};

/// Signals after which nothing is waited for any more.
const LAST_SIGNAL: u32 = 3;
/// How long the result of an ended session is asked for when the stream did not bring it.
const RESULT_PATIENCE: Duration = Duration::from_secs(10);

/// Run one program, and leave with its exit code.
///
/// The program runs on the server that --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY. Without one, a
/// server is started for it on the strongest backend of this machine, and removed afterwards.
///
/// stdout has the program's standard output and nothing else; stderr has its standard error, then the verdict and the
/// JSON that it gave to enclave.result. With --json, stdout has one line, the result as a JSON object with the session in
/// it, and the program's output goes to stderr. On a terminal, control sequences in the output are made visible instead of
/// obeyed, all but colours; a pipe or a file gets the bytes as they are.
///
/// Ctrl-C cancels the session and waits until its sandbox is gone.
#[derive(Args, Debug)]
#[command(after_help = exit::TABLE)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    program: ProgramArgs,
    /// Backend to run on: gvisor or simulator [default: the strongest that works; the server's own with --server]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Server to run on, http://127.0.0.1:8088 for example
    #[arg(long = "server", alias = "url", value_name = "URL", env = client::BASE_URL_VARIABLE)]
    url: Option<String>,
    /// Directory to save artifacts in, which is made if it is not there. Nothing in it is replaced
    #[arg(long, value_name = "DIR", requires = "artifact", help_heading = "Artifacts")]
    save_to: Option<PathBuf>,
    /// Print the result and the session as one JSON object, the only line of stdout
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new(if args.json { Form::Json } else { Form::Text });
    let signals = Signals::take()?;
    tokio::spawn({
        let signals = signals.clone();
        async move {
            // At once, whatever is under way: a server that this command had started is cleaned up after by the next.
            signals.at_least(3).await;
            std::process::exit(exit::CANCELLED.into());
        }
    });
    let mut asked = match args.program.request() {
        Ok(asked) => asked,
        Err(error) => {
            return Ok(give_up("There is no program", &error.to_string(), exit::REFUSED, &mut screen).into());
        }
    };
    let save_to = args.save_to.as_deref();
    match args.url.filter(|url| !url.is_empty()) {
        Some(url) => {
            asked.request.backend = args.backend;
            let client = match client::key_from_env().and_then(|key| Client::new(&url, key)) {
                Ok(client) => client,
                Err(error) => {
                    return Ok(give_up("There is no server", &error.chain(), exit::REFUSED, &mut screen).into());
                }
            };
            if client.is_in_clear() {
                screen.say("the server is reached by plain HTTP: the API key can be read on the network on its way");
            }
            Ok(session(&client, &asked, save_to, &mut screen, &signals).await.into())
        }
        None => on_embedded(args.backend, &asked, save_to, &mut screen, &signals).await,
    }
}

async fn on_embedded(
    backend: Option<String>,
    asked: &Asked,
    save_to: Option<&Path>,
    screen: &mut Screen,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    let embedded = match Embedded::start(EmbeddedOptions { backend, ..EmbeddedOptions::default() }).await {
        Ok(embedded) => embedded,
        Err(error) => {
            let code = if error.is::<ConfigError>() { exit::REFUSED } else { exit::UNREACHABLE };
            return Ok(give_up("There is no server", &format!("{error:#}"), code, screen).into());
        }
    };
    let client = embedded.client().with_retry(Retry { attempts: 2, ..Retry::default() });
    let code = session(&client, asked, save_to, screen, signals).await;
    // Said, but the program's verdict stays the exit code.
    if let Err(error) = embedded.shutdown().await {
        screen.say(&format!("the server did not end cleanly: {error:#}"));
    }
    Ok(code.into())
}

/// Runs the session to its end, and gives the exit code.
async fn session(client: &Client, asked: &Asked, save_to: Option<&Path>, screen: &mut Screen, signals: &Signals) -> u8 {
    if signals.any() {
        return give_up("Cancelled", "there was no session yet", exit::CANCELLED, screen);
    }
    // A first signal from here on finds the session that is being made, and cancels it.
    let created = tokio::select! {
        created = asked.create(client) => created,
        () = signals.at_least(2) => {
            return give_up("Cancelled", "the server may have made the session", exit::CANCELLED, screen);
        }
    };
    let created = match created {
        Ok(created) => created,
        Err(error) => return refused(client, &error, screen),
    };
    let cancelling = Canceller::start(client, created.id, signals);
    let id = created.id;
    let followed = follow(client, created, screen, &cancelling).await;
    screen.end_output();
    let (session, result) = match followed {
        Ok(followed) => followed,
        Err(error) => {
            screen.say(&format!("{id} could not be followed to its end, and goes on without a reader"));
            refused(client, &error, screen);
            return exit::UNREACHABLE;
        }
    };
    screen.say(&report::verdict(&session, &result));
    for denial in &result.denials {
        let allowed_by = denial.allowed_by.as_ref().map(|rule| format!("; {rule} would allow it")).unwrap_or_default();
        screen.say(&format!("denied {}: {}{allowed_by}", denial.attempted, denial.reason));
    }
    for skipped in &result.artifacts_skipped {
        let because = serde_json::json!(skipped.because);
        screen.say(&format!("not collected: {}: {}", skipped.path, because.as_str().unwrap_or("unknown")));
    }
    if let Some(directory) = save_to {
        let failed = artifacts::save(client, result.session_id, &result.artifacts, directory).await;
        let saved = result.artifacts.len() - failed.len();
        screen.say(&format!("{saved} artifacts saved in {}", directory.display()));
        for (artifact, error) in failed {
            screen.say(&format!("not saved: {}: {error}", artifact.path));
        }
    }
    if let Some(given) = result.value() {
        // Indented JSON, on stderr like everything that Enclave says; --json is for programs.
        let pretty = serde_json::to_string_pretty(&given).unwrap_or_default();
        screen.say(&format!("result {pretty}"));
    }
    let printed = screen.json(&report::object(&session, &result));
    if printed.is_err() || cancelling.output_closed() { exit::CLOSED } else { exit::code(&result) }
}

/// Shows what comes until the end, then gives the session as it is then.
async fn follow(
    client: &Client,
    mut session: Session,
    screen: &mut Screen,
    cancelling: &Canceller,
) -> Result<(Session, SessionResult), ClientError> {
    let mut frames = client.stream(session.id);
    let mut result = None;
    while let Some(frame) = frames.next().await {
        match frame?.1 {
            StreamFrame::Stdout(chunk) => cancelling.unless_written(&screen.output(Stream::Stdout, &bytes(&chunk))),
            StreamFrame::Stderr(chunk) => cancelling.unless_written(&screen.output(Stream::Stderr, &bytes(&chunk))),
            StreamFrame::Gap(gap) => screen.say(&format!("{} bytes of output are missing here", gap.dropped_bytes)),
            StreamFrame::Result(arrived) => result = Some(*arrived),
            StreamFrame::Phase(change) => {
                session.phase = change.phase;
                session.outcome = change.outcome;
                session.kill_reason = change.kill_reason;
            }
            StreamFrame::Audit(_) | StreamFrame::Turn(_) | StreamFrame::End(_) => {}
        }
    }
    let result = match result {
        Some(result) => result,
        None => client.result(session.id, RESULT_PATIENCE).await?,
    };
    session.usage = Some(result.usage);
    // A server that stops ends its streams properly, and may not answer any more behind them.
    Ok((client.session(session.id).await.unwrap_or(session), result))
}

/// The exact bytes of a chunk.
pub(crate) fn bytes(chunk: &Chunk) -> Vec<u8> {
    let exact = chunk.base64.as_ref().and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    exact.unwrap_or_else(|| chunk.text.clone().into_bytes())
}

fn refused(client: &Client, error: &ClientError, screen: &mut Screen) -> u8 {
    for line in report::told(client, error) {
        screen.say(&line);
    }
    // If nobody reads it, the exit code still says it.
    let _ = screen.json(&report::error_object(error));
    match error.problem() {
        Some(problem) if problem.status < 500 && problem.status != 429 => exit::REFUSED,
        Some(_) | None => exit::UNREACHABLE,
    }
}

/// There will be no session.
fn give_up(title: &str, detail: &str, code: u8, screen: &mut Screen) -> u8 {
    for line in detail.lines() {
        screen.say(line);
    }
    // If nobody reads it, the exit code still says it.
    let _ = screen.json(&serde_json::json!({ "error": { "title": title, "detail": detail } }));
    code
}

/// Cancels the session when it is told to stop, from a task of its own: it works while output is being written to
/// somebody who does not read it.
struct Canceller {
    task: tokio::task::JoinHandle<()>,
    closed: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl Canceller {
    fn start(client: &Client, id: SessionId, signals: &Signals) -> Self {
        let (closed, wake) = (Arc::<AtomicBool>::default(), Arc::<tokio::sync::Notify>::default());
        let (client, signals, woken) = (client.clone(), signals.clone(), Arc::clone(&wake));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = signals.at_least(1) => eprintln!("enclave: cancelling; waiting until the sandbox is gone"),
                () = woken.notified() => {}
            }
            tokio::select! {
                // The stream tells what became of it.
                _ = client.delete(id) => {}
                () = signals.at_least(LAST_SIGNAL) => {}
            }
            signals.at_least(LAST_SIGNAL).await;
            eprintln!("enclave: left without waiting; what is left is removed by the next start");
            std::process::exit(exit::CANCELLED.into());
        });
        Self { task, closed, wake }
    }

    fn unless_written(&self, written: &Result<(), Closed>) {
        if written.is_err() && !self.closed.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    fn output_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        self.task.abort();
    }
}
