//! Where a conversation is held: on the server that was named, or on one that is started for it and removed afterwards; and
//! the session that is made for it, and ended behind it.

use std::process::ExitCode;

use client::{Client, ClientError};
use wire::{CreateSession, ExecMode, Interactive, Language, Session, SessionId};

use crate::{
    embedded::{Embedded, EmbeddedOptions},
    run::{
        exit, report,
        request::{Asked, PolicyArgs, ProgramError},
        screen::Screen,
    },
    settings::ConfigError,
};

/// Why there is nobody to talk to.
pub(crate) enum NoSession {
    Request(ProgramError),
    NotInteractive(SessionId),
    Client(ClientError),
}

impl NoSession {
    /// Says it; gives the exit code.
    pub(crate) fn say(self, client: &Client, screen: &mut Screen) -> u8 {
        match self {
            Self::Request(error) => screen.say(&error.to_string()),
            Self::NotInteractive(id) => screen.say(&format!("{id} is not interactive")),
            Self::Client(error) => return refused(client, &error, screen),
        }
        exit::REFUSED
    }
}

/// Makes an interactive session.
pub(crate) async fn session(
    client: &Client,
    policy: PolicyArgs,
    language: Option<Language>,
    bounds: Interactive,
    backend: Option<String>,
) -> Result<Session, NoSession> {
    let Asked { request, files } = policy.request().map_err(NoSession::Request)?;
    let request = CreateSession {
        language: language.unwrap_or_default(),
        exec_mode: ExecMode::Interactive,
        interactive: Some(bounds),
        backend,
        ..request
    };
    Asked { request, files }.create(client).await.map_err(NoSession::Client)
}

/// Ends the session that was made.
pub(crate) async fn end(client: &Client, session: SessionId, screen: &mut Screen) {
    if let Err(error) = client.delete(session).await {
        screen.say(&format!("{session} could not be ended, and ends when it has idled long enough"));
        refused(client, &error, screen);
    }
}

/// Says what a server said; gives the exit code.
pub(crate) fn refused(client: &Client, error: &ClientError, screen: &mut Screen) -> u8 {
    for line in report::told(client, error) {
        screen.say(&line);
    }
    match error.problem() {
        Some(problem) if problem.status < 500 && problem.status != 429 => exit::REFUSED,
        Some(_) | None => exit::UNREACHABLE,
    }
}

/// Holds it; gives its exit code. With a server that was named, `backend` is one of that server's; else it is the one that the
/// server is started on, and no longer to be asked for.
pub(crate) async fn hold(
    url: Option<String>,
    backend: Option<String>,
    joins: bool,
    screen: &mut Screen,
    conversation: impl AsyncFnOnce(&Client, Option<String>, &mut Screen) -> u8,
) -> ExitCode {
    if let Some(url) = url.filter(|url| !url.is_empty()) {
        let client = match client::key_from_env().and_then(|key| Client::new(&url, key)) {
            Ok(client) => client,
            Err(error) => return give_up(&error.chain(), exit::REFUSED, screen),
        };
        if client.is_in_clear() {
            screen.say("the server is reached by plain HTTP: the API key can be read on the network on its way");
        }
        return conversation(&client, backend, screen).await.into();
    }
    if joins {
        let line = "--session needs the server that the session is on: --server or ENCLAVE_BASE_URL";
        return give_up(line, exit::REFUSED, screen);
    }
    let embedded = match Embedded::start(EmbeddedOptions { backend, ..EmbeddedOptions::default() }).await {
        Ok(embedded) => embedded,
        Err(error) => {
            let code = if error.is::<ConfigError>() { exit::REFUSED } else { exit::UNREACHABLE };
            return give_up(&format!("{error:#}"), code, screen);
        }
    };
    let code = conversation(&embedded.client(), None, screen).await;
    // Said, but what became of the conversation stays the exit code.
    if let Err(error) = embedded.shutdown().await {
        screen.say(&format!("the server did not end cleanly: {error:#}"));
    }
    code.into()
}

fn give_up(line: &str, code: u8, screen: &mut Screen) -> ExitCode {
    screen.say(line);
    code.into()
}
