//! `enclave terminal`: this terminal stands for one in a sandbox, until the program in it ends.

mod local;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use client::{Client, ClientError, Retry, TerminalOutput, TerminalSocket};
use wire::{CreateTerminal, ErrorCode, Interactive, Language, Phase, SessionId, Terminal, TerminalSize};

use crate::{
    run::{
        exit,
        request::{self, PolicyArgs},
        screen::{Form, Screen},
    },
    settings::values,
    signals::Signals,
    terminal::local::{Done, Escape, Local, Typed},
    venue::{self, NoSession, refused},
};

/// What `enclave terminal` leaves with.
const TABLE: &str = "\
Exit codes:
  0…255  the program in the terminal ended with that code, or by signal n: 128 + n
  2      the command line is wrong, or the server refused the request
  3      the server cannot be reached, is busy, or there is no backend
  4      the session ended first, or the terminal was left with ~.
  130    a signal ended it
  141    nobody takes what is shown any more";

/// The session ended before the terminal did, or whoever typed left.
const ENDED: u8 = 4;
/// Between two looks at a session that does not run yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often a connection is tried to be taken up again: for two minutes.
const PERSISTENT: Retry = Retry {
    attempts: 30,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
    longest_retry_after: Duration::from_secs(30),
};

/// Use a terminal in a sandbox.
///
/// A shell, or the command that is given, with a terminal of its own: everything that is typed goes there, Ctrl-C included.
/// What runs in it ends with it. A connection that breaks is taken up again, and nothing that was shown is missing.
///
/// ~. at the beginning of a line leaves: a session that was joined keeps its terminal.
///
/// What is shown is what the sandbox writes, and a terminal obeys it.
///
/// The server is the one that --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY. Without one, a server is
/// started on the strongest backend of this machine, and removed afterwards.
#[derive(Args, Debug)]
#[command(after_help = TABLE)]
pub(crate) struct TerminalArgs {
    /// Session to join, instead of a new one; it is left as it is afterwards
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Language of the session's image: python or node [default: python]
    #[arg(long, value_parser = request::language, conflicts_with = "session")]
    language: Option<Language>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// End the session after this time without anything typed, 5m for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    idle: Option<u64>,
    /// End the session after this time in any case, 1h for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    lifetime: Option<u64>,
    /// Backend to run on: gvisor or simulator [default: the strongest that works; the server's own with --server]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Server to run on, http://127.0.0.1:8088 for example
    #[arg(long = "server", alias = "url", value_name = "URL", env = client::BASE_URL_VARIABLE)]
    url: Option<String>,
    /// Program to run in it, and its arguments [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(args: TerminalArgs) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new(Form::Text);
    let signals = Signals::take()?;
    let (backend, url, joins) = (args.backend.clone(), args.url.clone(), args.session.is_some());
    let conversation =
        async |client: &Client, backend, screen: &mut Screen| converse(client, args, backend, screen, &signals).await;
    Ok(venue::hold(url, backend, joins, &mut screen, conversation).await)
}

/// From the session to its end; gives the exit code.
async fn converse(
    client: &Client,
    args: TerminalArgs,
    backend: Option<String>,
    screen: &mut Screen,
    signals: &Signals,
) -> u8 {
    let (joined, command) = (args.session, args.command.clone());
    let session = match joined {
        Some(id) => id,
        None => match create(client, args, backend).await {
            Ok(id) => id,
            Err(no_session) => return no_session.say(client, screen),
        },
    };
    let code = in_session(client, session, command, screen, signals).await;
    if joined.is_none() {
        venue::end(client, session, screen).await;
    }
    code
}

async fn create(client: &Client, args: TerminalArgs, backend: Option<String>) -> Result<SessionId, NoSession> {
    let bounds = Interactive {
        idle_ttl_ms: args.idle,
        max_lifetime_ms: args.lifetime,
        turn_timeout_ms: None,
        turn_budget_ms: None,
    };
    Ok(venue::session(client, args.policy, args.language, bounds, backend).await?.id)
}

async fn in_session(
    client: &Client,
    session: SessionId,
    command: Vec<String>,
    screen: &mut Screen,
    signals: &Signals,
) -> u8 {
    let size = local::size();
    let opened = tokio::select! {
        opened = open(client, session, command, size) => opened,
        () = signals.at_least(1) => return exit::CANCELLED,
    };
    let terminal = match opened {
        Ok(terminal) => terminal,
        Err(error) => return refused(client, &error, screen),
    };
    let mut local = match Local::take() {
        Ok(local) => local,
        Err(error) => {
            screen.say(&format!("the terminal cannot be used: {error}"));
            return exit::REFUSED;
        }
    };
    let mut socket = client.clone().with_retry(PERSISTENT).attach(session, terminal.id, None);
    let end = tokio::select! {
        end = carry(&mut socket, &mut local) => end,
        () = signals.at_least(1) => End::Signal,
    };
    local.restore();
    let code = match end {
        End::Exited(code) => return code,
        End::Left => {
            screen.say(&format!("left {} of {session}", terminal.id));
            socket.leave().await;
            return ENDED;
        }
        End::Signal => exit::CANCELLED,
        End::Closed(why) => {
            screen.say(&format!("the terminal was closed: {why}"));
            ENDED
        }
        End::Failed(error) if is_over(&error) => {
            screen.say("the session has ended");
            return ENDED;
        }
        End::Failed(error) => refused(client, &error, screen),
        End::Output(error) => {
            screen.say(&format!("nothing can be shown any more: {error}"));
            exit::CLOSED
        }
    };
    // What runs in it goes with whoever used it, as far as it can be reached.
    let _ = client.close_terminal(session, terminal.id).await;
    code
}

/// Opens it, once the session runs.
async fn open(
    client: &Client,
    session: SessionId,
    command: Vec<String>,
    size: Option<TerminalSize>,
) -> Result<Terminal, ClientError> {
    let asked = CreateTerminal {
        command,
        rows: size.map(|size| size.rows),
        cols: size.map(|size| size.cols),
        ..CreateTerminal::default()
    };
    loop {
        match client.open_terminal(session, &asked).await {
            Err(error) if is_over(&error) && client.session(session).await?.phase == Phase::Pending => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // It may have begun to run in between.
            Err(error) if is_over(&error) && client.session(session).await?.phase == Phase::Running => {
                return client.open_terminal(session, &asked).await;
            }
            done => return done,
        }
    }
}

/// Why it is over.
enum End {
    Exited(u8),
    Closed(String),
    Failed(ClientError),
    /// Standard output takes nothing.
    Output(std::io::Error),
    Left,
    Signal,
}

/// Carries what is typed there and what is shown here.
async fn carry(socket: &mut TerminalSocket, local: &mut Local) -> End {
    let mut escape = Escape::new();
    loop {
        tokio::select! {
            shown = socket.next() => match shown {
                Ok(TerminalOutput::Bytes(bytes)) => {
                    if let Err(error) = local::show(&bytes) {
                        return End::Output(error);
                    }
                }
                Ok(TerminalOutput::Gap(gap)) => {
                    let line = format!("\r\nenclave: {} bytes are not there any more\r\n", gap.to - gap.from);
                    if let Err(error) = local::show(line.as_bytes()) {
                        return End::Output(error);
                    }
                }
                // Only the low byte reaches a parent.
                Ok(TerminalOutput::Exited(exit)) => {
                    return End::Exited(u8::try_from(exit.exit_code() & 0xff).unwrap_or(u8::MAX));
                }
                Ok(TerminalOutput::Closed(why)) => return End::Closed(why),
                Err(error) => return End::Failed(error),
            },
            done = local.next() => {
                let typed = match done {
                    Done::Typed(keys) if local.is_terminal() => escape.pass(&keys),
                    Done::Typed(keys) => Typed::Send(keys),
                    // As who types has nothing more to say.
                    Done::Over => Typed::Send(vec![0x04]),
                    Done::Resized(size) => {
                        if let Err(error) = socket.resize(size).await {
                            return End::Failed(error);
                        }
                        continue;
                    }
                };
                let (keys, leaves) = match typed {
                    Typed::Send(keys) => (keys, false),
                    Typed::Leave(keys) => (keys, true),
                };
                if let Err(error) = socket.input(&keys).await {
                    return End::Failed(error);
                }
                if leaves {
                    return End::Left;
                }
            }
        }
    }
}

/// Whether the session runs no more, or not yet.
fn is_over(error: &ClientError) -> bool {
    error.problem().is_some_and(|problem| problem.code == ErrorCode::WrongState)
}
