//! Where a conversation is held: on the server that was named, or on one that is started for it and removed afterwards.

use std::process::ExitCode;

use client::Client;

use crate::{
    embedded::{Embedded, EmbeddedOptions},
    run::{exit, screen::Screen},
    settings::ConfigError,
};

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
        let line = "--session needs the server that the session is on: --url or ENCLAVE_BASE_URL";
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
