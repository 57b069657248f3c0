//! Terminals of a program that runs.

use protocol::{
    Exit, GuestFrame, HostFrame,
    terminals::{
        OpenTerminal, TERMINAL_WINDOW_BYTES, TerminalCall, TerminalOp, TerminalReply, TerminalSaid, TerminalSize,
    },
};

use crate::conformance::{
    context::{Checked, Context, Failed, Running, ensure},
    programs::KEEPER,
};

const SIZE: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// A terminal as its host has it.
#[derive(Default)]
struct Screen {
    number: u32,
    seen: Vec<u8>,
    unacked: u64,
    ended: Option<Exit>,
}

impl Running {
    async fn say(&mut self, terminal: u32, op: TerminalOp) -> Checked {
        Ok(self.sender.send(&HostFrame::Terminal(TerminalCall { terminal, op })).await?)
    }

    async fn hear(&mut self, terminal: u32) -> Checked<TerminalSaid> {
        loop {
            match self.receiver.next().await? {
                Some(GuestFrame::Terminal(TerminalReply { terminal: of, said })) if of == terminal => return Ok(said),
                Some(frame) => self.seen.take(frame),
                None => return Err(Failed(format!("nothing more is said: {:?}", self.seen))),
            }
        }
    }

    /// Opens one; gives why not, where its command cannot be run.
    async fn terminal(&mut self, number: u32, command: &[&str]) -> Checked<Result<Screen, String>> {
        let command = command.iter().map(ToString::to_string).collect();
        let env = vec![("PS1".to_owned(), "$ ".to_owned())];
        self.say(number, TerminalOp::Open(OpenTerminal { command, env, size: SIZE })).await?;
        match self.hear(number).await? {
            TerminalSaid::Opened => Ok(Ok(Screen { number, ..Screen::default() })),
            TerminalSaid::NotOpened { is_command: true, message } => Ok(Err(message)),
            other @ (TerminalSaid::NotOpened { .. }
            | TerminalSaid::Output(_)
            | TerminalSaid::Took { .. }
            | TerminalSaid::Ended(_)) => Err(Failed(format!("{other:?}"))),
        }
    }

    async fn shell(&mut self, number: u32) -> Checked<Screen> {
        let mut screen = self.terminal(number, &["sh"]).await?.map_err(Failed)?;
        self.expect(&mut screen, "$ ").await?;
        Ok(screen)
    }

    async fn types(&mut self, screen: &Screen, text: &str) -> Checked {
        self.say(screen.number, TerminalOp::Input(text.into())).await
    }

    /// Takes the next that is said of it, and acknowledges nothing.
    async fn step(&mut self, screen: &mut Screen) -> Checked {
        match self.hear(screen.number).await? {
            TerminalSaid::Output(data) => {
                screen.unacked += data.len() as u64;
                screen.seen.extend(data);
                ensure!(screen.unacked <= TERMINAL_WINDOW_BYTES, "{} bytes are not acknowledged", screen.unacked);
            }
            TerminalSaid::Ended(exit) => screen.ended = Some(exit),
            TerminalSaid::Took { .. } => {}
            other @ (TerminalSaid::Opened | TerminalSaid::NotOpened { .. }) => {
                return Err(Failed(format!("{other:?}")));
            }
        }
        Ok(())
    }

    async fn acknowledge(&mut self, screen: &mut Screen) -> Checked {
        let bytes = u32::try_from(std::mem::take(&mut screen.unacked)).unwrap_or(u32::MAX);
        self.say(screen.number, TerminalOp::Ack { bytes }).await
    }

    /// Reads until there is this text, and forgets what came up to it.
    async fn expect(&mut self, screen: &mut Screen, text: &str) -> Checked {
        loop {
            let seen = String::from_utf8_lossy(&screen.seen).into_owned();
            if let Some(at) = seen.find(text) {
                screen.seen = seen[at + text.len()..].into();
                return Ok(());
            }
            ensure!(screen.ended.is_none(), "ended without {text:?}: {seen}");
            self.step(screen).await?;
        }
    }

    /// Reads to its end.
    async fn end(&mut self, screen: &mut Screen) -> Checked<Exit> {
        loop {
            if let Some(exit) = screen.ended {
                return Ok(exit);
            }
            self.step(screen).await?;
            if screen.unacked > TERMINAL_WINDOW_BYTES / 2 {
                self.acknowledge(screen).await?;
            }
        }
    }

    async fn over(self) -> Checked {
        self.context.backend.kill(&self.id).await?;
        self.finish().await?;
        Ok(())
    }
}

async fn keeper(context: &Context) -> Checked<Running> {
    let mut running = context.start(KEEPER, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    Ok(running)
}

pub(super) async fn a_terminal_echoes_has_a_size_and_ends_with_its_exit_code(context: Context) -> Checked {
    let mut running = keeper(&context).await?;
    let mut shell = running.shell(1).await?;
    running.types(&shell, "echo hello\r").await?;
    running.expect(&mut shell, "echo hello\r\nhello\r\n").await?;
    running.types(&shell, "stty size\r").await?;
    running.expect(&mut shell, "24 80\r\n").await?;
    running.say(1, TerminalOp::Resize(TerminalSize { rows: 50, cols: 132 })).await?;
    running.types(&shell, "stty size\r").await?;
    running.expect(&mut shell, "50 132\r\n").await?;
    running.types(&shell, "exit 7\r").await?;
    let exit = running.end(&mut shell).await?;
    ensure!(exit == Exit::Code(7), "{exit:?}");
    running.over().await
}

pub(super) async fn a_terminal_that_nobody_reads_waits_and_holds_nothing_else_up(context: Context) -> Checked {
    let mut running = keeper(&context).await?;
    let mut flood = running.terminal(1, &["seq", "1", "60000"]).await?.map_err(Failed)?;
    while flood.unacked < TERMINAL_WINDOW_BYTES {
        running.step(&mut flood).await?;
    }
    let mut shell = running.shell(2).await?;
    running.types(&shell, "echo lively\r").await?;
    running.expect(&mut shell, "\r\nlively\r\n").await?;
    running.acknowledge(&mut flood).await?;
    let exit = running.end(&mut flood).await?;
    ensure!(exit == Exit::Code(0), "{exit:?}");
    let expected: String = (1..=60_000).map(|number| format!("{number}\r\n")).collect();
    ensure!(flood.seen == expected.as_bytes(), "{} bytes of {}", flood.seen.len(), expected.len());
    running.over().await
}

pub(super) async fn a_terminal_that_is_closed_ends_and_the_program_lives_on(context: Context) -> Checked {
    let mut running = keeper(&context).await?;
    let mut shell = running.shell(1).await?;
    running.say(1, TerminalOp::Close).await?;
    running.end(&mut shell).await?;
    // What comes too late is without effect.
    for op in
        [TerminalOp::Input(b"x".to_vec()), TerminalOp::Ack { bytes: 1 }, TerminalOp::Resize(SIZE), TerminalOp::Close]
    {
        running.say(1, op).await?;
    }
    let absent = running.terminal(2, &["no-such-program"]).await?;
    ensure!(absent.as_ref().is_err_and(|message| message.contains("no-such-program")), "it was opened");
    running.shell(3).await?;
    ensure!(running.seen.exit.is_none(), "{:?}", running.seen);
    running.over().await
}
