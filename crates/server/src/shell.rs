//! `enclave shell`: a conversation with a sandbox, from the prompt to its end.

mod blocks;
mod complete;
mod history;
mod picture;
mod prompt;
mod turn;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::Args;
use client::{Client, ClientError};
use wire::{ExecMode, Interactive, Language, Session, SessionId};

use crate::{
    run::{
        exit,
        request::{self, PolicyArgs},
        screen::{Form, Screen},
    },
    settings::values,
    shell::{
        blocks::Blocks,
        prompt::{Entry, Prompt},
        turn::{Became, Talk},
    },
    signals::Signals,
    venue::{self, NoSession, refused},
};

/// What `enclave shell` leaves with.
const TABLE: &str = "\
Exit codes:
  0    the conversation was ended from here
  1    standard input is no terminal, and a turn failed
  2    the command line is wrong, or the server refused the request
  3    the server cannot be reached, is busy, or there is no backend
  4    the session ended first: stderr says why
  130  a signal ended it; or standard input is no terminal, and a turn was interrupted";

/// A turn of a script failed.
const FAILED: u8 = 1;
/// The session ended before the conversation did.
const ENDED: u8 = 4;

/// Hold a conversation with a sandbox.
///
/// One sandbox with a warm interpreter: what a turn defines, writes and installs is there for the next one. The value of a
/// turn's last expression is printed, and pictures are saved to files whose path is printed. A turn ends with a line that
/// completes it; what is opened with a colon or a bracket goes on over further lines, up to a blank one.
///
/// Ctrl-C interrupts the turn that runs and leaves the session as it is; Ctrl-D ends the session and removes its sandbox.
///
/// When standard input is no terminal, turns are read from it: a blank line in front of a line that is not indented ends
/// one. The first that does not complete ends the conversation.
///
/// The server is the one that --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY. Without one, a server is
/// started on the strongest backend of this machine, and removed afterwards.
#[derive(Args, Debug)]
#[command(after_help = TABLE)]
pub(crate) struct ShellArgs {
    /// Language of the conversation: python or node [default: python]
    #[arg(long, value_parser = request::language, conflicts_with = "session")]
    language: Option<Language>,
    /// Interactive session to talk to, instead of a new one; it is left as it is afterwards
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// End the session after this time without a turn, 5m for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    idle: Option<u64>,
    /// End the session after this time in any case, 1h for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    lifetime: Option<u64>,
    /// Interrupt a turn after this time, 60s for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    turn: Option<u64>,
    /// Directory for pictures [default: the current one]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pictures: PathBuf,
    /// Backend to run on: gvisor or simulator [default: the strongest that works; the server's own with --server]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Server to run on, http://127.0.0.1:8088 for example
    #[arg(long = "server", alias = "url", value_name = "URL", env = client::BASE_URL_VARIABLE)]
    url: Option<String>,
}

pub(crate) async fn run(args: ShellArgs) -> anyhow::Result<ExitCode> {
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
    args: ShellArgs,
    backend: Option<String>,
    screen: &mut Screen,
    signals: &Signals,
) -> u8 {
    let (pictures, joined) = (args.pictures.clone(), args.session);
    let session = match session(client, args, backend).await {
        Ok(session) => session,
        Err(no_session) => return no_session.say(client, screen),
    };
    let mut talk = Talk { client, session: &session, pictures, signals };
    let code = if std::io::stdin().is_terminal() {
        by_hand(&mut talk, screen).await
    } else {
        by_script(&mut talk, screen).await
    };
    if joined.is_none() {
        venue::end(client, session.id, screen).await;
    }
    code
}

async fn session(client: &Client, args: ShellArgs, backend: Option<String>) -> Result<Session, NoSession> {
    if let Some(id) = args.session {
        let session = client.session(id).await.map_err(NoSession::Client)?;
        return match session.exec_mode {
            ExecMode::Interactive => Ok(session),
            ExecMode::Oneshot => Err(NoSession::NotInteractive(id)),
        };
    }
    let bounds = Interactive {
        idle_ttl_ms: args.idle,
        max_lifetime_ms: args.lifetime,
        turn_timeout_ms: args.turn,
        turn_budget_ms: None,
    };
    venue::session(client, args.policy, args.language, bounds, backend).await
}

/// A person types.
async fn by_hand(talk: &mut Talk<'_>, screen: &mut Screen) -> u8 {
    let session = talk.session;
    let where_ = format!("{} ({})", session.backend, session.isolation.as_str());
    screen.say(&format!("{} · {} on {where_} · Ctrl-D ends it", session.language.as_str(), session.id));
    let mut prompt = match Prompt::new(session.language) {
        Ok(prompt) => prompt,
        Err(error) => {
            screen.say(&format!("the terminal cannot be used: {error}"));
            return exit::REFUSED;
        }
    };
    loop {
        let entry = tokio::select! {
            entry = prompt.next() => entry,
            () = talk.signals.terminated() => return exit::CANCELLED,
        };
        match entry {
            Ok(Entry::Code(code)) => match talk.turn(code, screen).await {
                Ok(Became::Completed | Became::Failed | Became::Interrupted) => {}
                Ok(Became::Ended) => return ENDED,
                Err(error) if is_over(&error) => return ended(talk, screen).await,
                Err(error) => {
                    // The session is still there, and so is whoever typed.
                    refused(talk.client, &error, screen);
                }
            },
            Ok(Entry::Nothing) => {}
            Ok(Entry::End) => return 0,
            Err(error) => {
                screen.say(&format!("the terminal cannot be read: {error}"));
                return exit::REFUSED;
            }
        }
    }
}

/// Turns come from a pipe or a file.
async fn by_script(talk: &mut Talk<'_>, screen: &mut Screen) -> u8 {
    let mut blocks = Blocks::of_stdin(talk.session.language);
    loop {
        let seen = talk.signals.count();
        let block = tokio::select! {
            block = blocks.next() => block,
            () = talk.signals.at_least(seen + 1) => return exit::CANCELLED,
        };
        let code = match block {
            Ok(Some(code)) => code,
            Ok(None) => return 0,
            Err(error) => {
                screen.say(&format!("standard input cannot be read: {error}"));
                return exit::REFUSED;
            }
        };
        match talk.turn(code, screen).await {
            Ok(Became::Completed) => {}
            Ok(Became::Failed) => return FAILED,
            Ok(Became::Interrupted) => return exit::CANCELLED,
            Ok(Became::Ended) => return ENDED,
            Err(error) if is_over(&error) => return ended(talk, screen).await,
            Err(error) => return refused(talk.client, &error, screen),
        }
    }
}

/// Whether the session takes no more turns.
fn is_over(error: &ClientError) -> bool {
    error.problem().is_some_and(|problem| problem.code == wire::ErrorCode::WrongState)
}

/// Says why the session has ended.
async fn ended(talk: &Talk<'_>, screen: &mut Screen) -> u8 {
    talk.say_end(screen).await;
    ENDED
}
