//! One turn, from its code to what is shown of it.

use std::{path::PathBuf, time::Duration};

use client::{Client, ClientError};
use futures::StreamExt as _;
use wire::{CreateTurn, Session, Turn, TurnFrame, TurnStatus};

use crate::{
    run::{
        bytes, report,
        screen::{Screen, Stream},
    },
    shell::picture,
    signals::Signals,
};

/// How long the result of a session that has ended is waited for.
const RESULT_PATIENCE: Duration = Duration::from_secs(10);

/// A conversation under way.
pub(super) struct Talk<'a> {
    pub(super) client: &'a Client,
    pub(super) session: &'a Session,
    /// Where pictures go.
    pub(super) pictures: PathBuf,
    pub(super) signals: &'a Signals,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Completed,
    Failed,
    Interrupted,
    /// The session ended with it.
    Ended,
}

impl Talk<'_> {
    /// Runs a turn and shows what comes of it. Each signal meanwhile interrupts it.
    pub(super) async fn turn(&mut self, code: String, screen: &mut Screen) -> Result<Became, ClientError> {
        let mut seen = self.signals.count();
        let asked = CreateTurn { code, timeout_ms: None };
        let mut frames = self.client.stream_turn(self.session.id, &asked).await?;
        let mut number = None;
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                () = self.signals.at_least(seen + 1), if number.is_some() => {
                    seen = self.signals.count();
                    if let Some(number) = number {
                        self.client.interrupt_turn(self.session.id, number).await?;
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { return Err(ClientError::StreamLost { tries: 1, source: None }) };
            match frame? {
                TurnFrame::Turn(change) => number = Some(change.number),
                // Whoever closes the output of a shell ends the shell by closing its input, too.
                TurnFrame::Stdout(chunk) => drop(screen.output(Stream::Stdout, &bytes(&chunk))),
                TurnFrame::Stderr(chunk) => drop(screen.output(Stream::Stderr, &bytes(&chunk))),
                TurnFrame::Gap(gap) => screen.say(&format!("{} bytes of output are missing here", gap.dropped_bytes)),
                TurnFrame::End(turn) => return Ok(self.show(&turn, screen).await),
            }
        }
    }

    async fn show(&self, turn: &Turn, screen: &mut Screen) -> Became {
        screen.end_output();
        if let Some(value) = &turn.value {
            if let Some(png) = &value.png {
                match picture::save(&self.pictures, self.session.id, turn.number, png) {
                    Ok(path) => screen.say(&format!("picture {}", path.display())),
                    Err(error) => screen.say(&format!("a picture could not be saved: {error}")),
                }
            }
            if let Some(text) = &value.plain {
                screen.line(Stream::Stdout, text);
            }
        }
        if let Some(error) = &turn.error {
            let told = if error.traceback.trim().is_empty() {
                format!("{}: {}", error.name, error.value)
            } else {
                error.traceback.trim_end().to_owned()
            };
            screen.line(Stream::Stderr, &told);
        }
        match turn.status {
            TurnStatus::Completed => Became::Completed,
            TurnStatus::Failed => Became::Failed,
            TurnStatus::Interrupted => {
                if turn.error.is_none() {
                    screen.say("interrupted");
                }
                Became::Interrupted
            }
            TurnStatus::Aborted | TurnStatus::Queued | TurnStatus::Running => {
                self.say_end(screen).await;
                Became::Ended
            }
        }
    }

    /// Says what became of the session.
    pub(super) async fn say_end(&self, screen: &mut Screen) {
        let id = self.session.id;
        let told = match self.client.result(id, RESULT_PATIENCE).await {
            Ok(result) => {
                let session = self.client.session(id).await.unwrap_or_else(|_| self.session.clone());
                report::verdict(&session, &result)
            }
            Err(_) => "its end cannot be read".to_owned(),
        };
        screen.say(&format!("the session has ended: {told}"));
    }
}
