//! The model runner: speaks the real protocol over an in-memory pipe, and plays a [`Program`] instead of running one.

mod frames;
mod interactive;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{Language, gateway::ToGateway};
use protocol::{
    Exit, GuestFrame, GuestLimit, HostFrame, MAX_FRAME_BYTES, MAX_RESULT_BYTES, NotPut, OUTPUT_CHUNK_BYTES, Put, Start,
    Stream, VERSION, egress::base_url,
};
use tokio::{
    io::{AsyncReadExt, DuplexStream},
    sync::mpsc,
};

use self::frames::{Heard, HostFrames};
use super::{
    clerk::{Clerk, lock},
    digest,
    files::Files,
    gateway::{ModelGateway, Tried},
    inside, mix,
    outbox::Outbox,
    program::{Instruction, Misbehaviour, Program, Reach},
    sandbox::Sandbox,
    terminals::{Silence, Terminals},
};
use crate::{SandboxLimit, Termination};

/// Results sent while a program runs; of more than that only the last one is.
const LIVE_RESULTS: u32 = 500;
/// Filler of a flood, a line at a time.
const FILLER: [u8; 64] = *b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";

/// Why a runner is done before its program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It went away, or the host did.
    Gone,
    /// The program went over a limit that is watched from outside.
    Over(SandboxLimit),
}

/// One sandbox's runner.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) language: Language,
    pub(super) from_host: DuplexStream,
    pub(super) outbox: Outbox,
    pub(super) seed: u64,
}

impl Runner {
    /// Says hello.
    pub(super) async fn greet(&mut self) -> Result<(), Stop> {
        self.outbox.say(&GuestFrame::Hello { version: VERSION }).await?;
        self.outbox.flush().await
    }

    /// Runs until nothing of the sandbox runs any more.
    pub(super) async fn run(mut self) {
        let Err(stop) = self.serve().await;
        self.sandbox.end(match stop {
            Stop::Gone => Termination::Exited,
            Stop::Over(limit) => Termination::Exceeded(limit),
        });
    }

    /// Waits as a runner that never says a word does.
    pub(super) async fn keep_silent(mut self) {
        while self.from_host.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        self.sandbox.end(Termination::Exited);
    }

    async fn serve(&mut self) -> Result<Infallible, Stop> {
        let files = Mutex::new(Files::default());
        let mut from_host = HostFrames::new(&mut self.from_host);
        let start = start(&mut from_host, &mut self.outbox, &self.sandbox, &files).await?;
        let own = match self.language {
            Language::Python => protocol::Language::Python,
            Language::Node => protocol::Language::Node,
        };
        if start.language != own {
            let (own, other) = (own.as_str(), start.language.as_str());
            let message = format!("this sandbox was prepared for {own}, the program is for {other}");
            return fault(&mut self.outbox, message).await;
        }
        self.sandbox.begin(mix(self.seed, digest(&start.code)));
        self.outbox.allow(start.output_bytes);

        let (mut gateway, mut told) = self.sandbox.take_gateway().unzip();
        let silence = Silence::default();
        let terminals = Terminals::new(self.outbox.pipe(), silence.clone());
        from_host.serve(Clerk { to_host: self.outbox.pipe(), files: &files, sandbox: &self.sandbox }, terminals);
        let mut play = Play {
            outbox: &mut self.outbox,
            sandbox: &self.sandbox,
            processes: inside::processes(self.language),
            language: self.language,
            start: &start,
            gateway: gateway.as_mut(),
            files: &files,
            terminals: silence.clone(),
            started: false,
            results: 0,
            last_result: None,
            raised: None,
        };
        // Rotations are taken, and change nothing that is modelled.
        let rotations = swallow(told.as_mut());
        let played = if start.interactive {
            tokio::select! {
                () = rotations => unreachable!("it never ends"),
                stopped = play.converse(&mut from_host) => stopped,
            }
        } else {
            let program = Program::read(&start.code, self.language, play.gateway.is_some());
            let heard = tokio::select! {
                biased;
                heard = from_host.heard(0) => heard.map(Some),
                () = rotations => unreachable!("it never ends"),
                ended = play.run(&program) => ended.map(|()| None),
            };
            match heard {
                Ok(None) => Ok(false),
                Ok(Some(Heard::Stop)) => Ok(true),
                // Whatever it is.
                Ok(Some(Heard::Interrupted | Heard::Unexpected)) => {
                    return fault(&mut self.outbox, "the host started a second program".to_owned()).await;
                }
                Err(stop) => Err(stop),
            }
        };
        let (stopped, grace) = match played {
            Ok(stopped) => (stopped, None),
            Err(Stop::Over(limit)) => {
                self.outbox.flush().await?;
                (true, Some((limit, self.sandbox.go_over(limit))))
            }
            Err(Stop::Gone) => return Err(Stop::Gone),
        };
        let outbox = &mut self.outbox;
        let rest = async {
            if grace.is_some() {
                while from_host.heard(0).await? != Heard::Stop {}
            }
            if stopped {
                let (session_id, exit) = (start.session_id.clone(), Exit::Signal(9));
                silence.begin();
                outbox.say(&GuestFrame::Exited { session_id, exit }).await?;
                outbox.flush().await?;
            }
            if start.stays {
                while from_host.heard(0).await? == Heard::Stop {}
            }
            Err(Stop::Gone)
        };
        match grace {
            None => rest.await,
            Some((limit, grace)) => tokio::time::timeout(grace, rest).await.unwrap_or(Err(Stop::Over(limit))),
        }
    }
}

/// Takes files until the start comes.
async fn start(
    from_host: &mut HostFrames<'_>,
    outbox: &mut Outbox,
    sandbox: &Sandbox,
    files: &Mutex<Files>,
) -> Result<Start, Stop> {
    loop {
        match from_host.next(outbox).await? {
            HostFrame::Start(start) => {
                let whole = lock(files).finish();
                match whole {
                    Ok(()) => return Ok(*start),
                    Err((reason, message)) => match not_put(outbox, reason, message).await? {},
                }
            }
            HostFrame::Put(put) => take(outbox, sandbox, files, put).await?,
            HostFrame::Turn(_) | HostFrame::Interrupt { .. } => {
                match fault(outbox, "the host sent a turn before the start".to_owned()).await? {}
            }
            HostFrame::File(_) | HostFrame::Terminal(_) | HostFrame::Stop => {
                match fault(outbox, "from the host: too early".to_owned()).await? {}
            }
        }
    }
}

async fn take(outbox: &mut Outbox, sandbox: &Sandbox, files: &Mutex<Files>, put: Put) -> Result<(), Stop> {
    let (path, bytes) = (put.path.clone(), put.data.len() as u64);
    let full = |limit| (NotPut::NoSpace, format!("{path}: the disk is full"), Stop::Over(limit));
    let put = lock(files).put(put).map_err(|(reason, message)| (reason, message, Stop::Gone));
    let Err((reason, message, stop)) = put.and_then(|()| sandbox.fill(bytes).map_err(full)) else {
        return Ok(());
    };
    let Err(gone) = not_put(outbox, reason, message).await;
    Err(if matches!(stop, Stop::Over(_)) { stop } else { gone })
}

async fn not_put(outbox: &mut Outbox, reason: NotPut, message: String) -> Result<Infallible, Stop> {
    outbox.say(&GuestFrame::NotPut { reason, message }).await?;
    outbox.flush().await?;
    Err(Stop::Gone)
}

async fn swallow(told: Option<&mut mpsc::Receiver<ToGateway>>) {
    if let Some(told) = told {
        while told.recv().await.is_some() {}
    }
    std::future::pending::<()>().await;
}

async fn fault(outbox: &mut Outbox, message: String) -> Result<Infallible, Stop> {
    outbox.say(&GuestFrame::Fault { message }).await?;
    outbox.flush().await?;
    Err(Stop::Gone)
}

/// A program that is being played.
struct Play<'a> {
    outbox: &'a mut Outbox,
    sandbox: &'a Sandbox,
    language: Language,
    start: &'a Start,
    gateway: Option<&'a mut ModelGateway>,
    files: &'a Mutex<Files>,
    terminals: Silence,
    started: bool,
    processes: u32,
    results: u32,
    last_result: Option<Vec<u8>>,
    /// In an interactive session: what the turn died of.
    raised: Option<String>,
}

impl Play<'_> {
    async fn run(&mut self, program: &Program) -> Result<(), Stop> {
        let exit = self.play(program).await?;
        self.confirm().await?;
        self.end(exit).await
    }

    /// Says the last words.
    async fn end(&mut self, exit: Exit) -> Result<(), Stop> {
        if let Some(json) = self.last_result.take() {
            self.outbox.say(&GuestFrame::Result { json }).await?;
        }
        let session_id = self.start.session_id.clone();
        if let Some(gateway) = &mut self.gateway {
            gateway.finish().await;
        }
        self.terminals.begin();
        self.outbox.say(&GuestFrame::Exited { session_id, exit }).await?;
        self.outbox.flush().await
    }

    /// Says that the program runs. Done as late as possible: a misbehaviour that comes first comes before that.
    async fn confirm(&mut self) -> Result<(), Stop> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        self.outbox.say(&GuestFrame::Started { session_id: self.start.session_id.clone() }).await
    }

    async fn play(&mut self, program: &Program) -> Result<Exit, Stop> {
        let mut at = 0;
        loop {
            let Some(instruction) = program.instructions.get(at) else {
                let Some(again) = program.again else { return Ok(Exit::Code(0)) };
                at = again;
                continue;
            };
            at += 1;
            if !matches!(instruction, Instruction::Frame(_)) {
                self.confirm().await?;
            }
            if let Some(exit) = self.step(instruction).await? {
                return Ok(exit);
            }
        }
    }

    async fn step(&mut self, instruction: &Instruction) -> Result<Option<Exit>, Stop> {
        match instruction {
            Instruction::Write(stream, data) => self.outbox.output(*stream, data).await?,
            Instruction::Flood(stream, bytes) => self.flood(*stream, *bytes).await?,
            Instruction::Sleep(duration) => {
                self.outbox.flush().await?;
                tokio::time::sleep(*duration).await;
            }
            Instruction::Cpu(cpu) => self.burn(*cpu).await?,
            Instruction::Memory(bytes) => self.within(self.sandbox.allocate(*bytes)).await?,
            Instruction::Disk(bytes) => self.within(self.sandbox.fill(*bytes)).await?,
            Instruction::Fork(count) | Instruction::Threads(count) => self.multiply(*count).await?,
            Instruction::Result(json) => return self.result(json.clone()).await,
            Instruction::Mirror => return self.result(inside::mirror(self.start)).await,
            Instruction::Exit(code) => return Ok(Some(Exit::Code(*code))),
            Instruction::Signal(signal) => return Ok(Some(Exit::Signal(*signal))),
            Instruction::Raise { text, line } => return self.raise(text, *line).await,
            Instruction::Connect(reach, to) => self.connect(*reach, to).await?,
            Instruction::Request { method, url } => self.request(method, url).await?,
            Instruction::Invoke { name, method, path } => self.invoke(name, method, path).await?,
            Instruction::Name(name, address) => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.name(name, *address);
                }
            }
            Instruction::Need { reach, to, line } => return self.need(*reach, to, *line).await,
            Instruction::Read(path) => {
                self.outbox.output(Stream::Stdout, inside::read(path).as_bytes()).await?;
            }
            Instruction::Save { path, data, append } => {
                self.within(self.sandbox.fill(data.len() as u64)).await?;
                lock(self.files).write(path, data, *append);
            }
            Instruction::Cat(path) => match self.content(path) {
                Some(content) => self.outbox.output(Stream::Stdout, &content).await?,
                None => return self.raise(&format!("FileNotFoundError: {path}"), 1).await,
            },
            Instruction::Hang => self.outbox.hang().await?,
            Instruction::Frame(misbehaviour) => self.misbehave(*misbehaviour).await?,
        }
        Ok(None)
    }

    fn content(&self, path: &str) -> Option<Arc<Vec<u8>>> {
        lock(self.files).read(path)
    }

    async fn connect(&mut self, reach: Reach, to: &str) -> Result<(), Stop> {
        let line = match &mut self.gateway {
            Some(gateway) => inside::told(&format!("{} {to}", reach.as_str()), &gateway.connect(reach, to).await),
            None => inside::connect(reach, to),
        };
        self.outbox.output(Stream::Stdout, line.as_bytes()).await
    }

    async fn request(&mut self, method: &str, url: &str) -> Result<(), Stop> {
        let line = match &mut self.gateway {
            Some(gateway) => inside::told(&format!("http {method} {url}"), &gateway.request(method, url).await),
            None => inside::connect(Reach::Http, url),
        };
        self.outbox.output(Stream::Stdout, line.as_bytes()).await
    }

    async fn invoke(&mut self, name: &str, method: &str, path: &str) -> Result<(), Stop> {
        let line = match &mut self.gateway {
            Some(gateway) => {
                inside::told(&format!("bind {name} {method} {path}"), &gateway.invoke(name, method, path).await)
            }
            None => inside::connect(Reach::Http, &format!("{}{path}", base_url(name))),
        };
        self.outbox.output(Stream::Stdout, line.as_bytes()).await
    }

    async fn need(&mut self, reach: Reach, to: &str, line: usize) -> Result<Option<Exit>, Stop> {
        let Some(gateway) = &mut self.gateway else { return Ok(None) };
        match gateway.connect(reach, to).await {
            Tried::Reached(_) => Ok(None),
            Tried::Refused(why) => {
                let text = inside::exception(self.language, reach, &why);
                self.raise(&text, line).await
            }
        }
    }

    async fn flood(&mut self, stream: Stream, bytes: u64) -> Result<(), Stop> {
        let block = FILLER.repeat(OUTPUT_CHUNK_BYTES / FILLER.len());
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.outbox.output(stream, &block[..now]).await?;
            left -= now as u64;
        }
        Ok(())
    }

    async fn burn(&mut self, cpu: Option<Duration>) -> Result<(), Stop> {
        self.outbox.flush().await?;
        let burning = self.sandbox.ignite(cpu);
        match burning.wall {
            Some(wall) => tokio::time::sleep(wall).await,
            None => std::future::pending().await,
        }
        self.within(self.sandbox.burnt_out(burning)).await
    }

    /// What the program has written until a limit ends it is still seen.
    async fn within(&mut self, taken: Result<(), SandboxLimit>) -> Result<(), Stop> {
        match taken {
            Ok(()) => Ok(()),
            Err(limit) => {
                self.outbox.flush().await?;
                Err(Stop::Over(limit))
            }
        }
    }

    async fn multiply(&mut self, count: u32) -> Result<(), Stop> {
        self.processes = self.processes.saturating_add(count);
        if self.processes <= self.start.pids {
            return Ok(());
        }
        // It goes on trying; ending it is the host's part.
        self.outbox.say(&GuestFrame::Exceeded { limit: GuestLimit::Pids }).await?;
        self.outbox.hang().await
    }

    async fn result(&mut self, json: Vec<u8>) -> Result<Option<Exit>, Stop> {
        if json.len() > MAX_RESULT_BYTES {
            let why = format!("enclave.result: {} bytes of JSON, at most {MAX_RESULT_BYTES} are allowed", json.len());
            let kind = match self.language {
                Language::Python => "ValueError",
                Language::Node => "RangeError",
            };
            return self.raise(&format!("{kind}: {why}"), 1).await;
        }
        if self.results < LIVE_RESULTS {
            self.results += 1;
            self.outbox.say(&GuestFrame::Result { json }).await?;
        } else {
            self.last_result = Some(json);
        }
        Ok(None)
    }

    async fn raise(&mut self, text: &str, line: usize) -> Result<Option<Exit>, Stop> {
        if self.start.interactive {
            self.raised = Some(text.to_owned());
            return Ok(Some(Exit::Code(1)));
        }
        self.outbox.output(Stream::Stderr, inside::trace(self.language, text, line).as_bytes()).await?;
        Ok(Some(Exit::Code(1)))
    }

    async fn misbehave(&mut self, how: Misbehaviour) -> Result<(), Stop> {
        let session_id = self.start.session_id.clone();
        match how {
            Misbehaviour::Garbage => self.outbox.babble(&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).await,
            Misbehaviour::Oversized => {
                let len = u32::try_from(MAX_FRAME_BYTES).expect("the limit fits into the prefix") + 1;
                self.outbox.babble(&len.to_be_bytes()).await
            }
            Misbehaviour::WrongOrder if self.started => self.outbox.say(&GuestFrame::Started { session_id }).await,
            Misbehaviour::WrongOrder => self.outbox.say(&GuestFrame::Exited { session_id, exit: Exit::Code(0) }).await,
            Misbehaviour::OtherSession if self.started => {
                let session_id = format!("{session_id}0");
                self.outbox.say(&GuestFrame::Exited { session_id, exit: Exit::Code(0) }).await
            }
            Misbehaviour::OtherSession => {
                let session_id = format!("{session_id}0");
                self.outbox.say(&GuestFrame::Started { session_id }).await
            }
            Misbehaviour::HelloAgain => self.outbox.say(&GuestFrame::Hello { version: VERSION }).await,
            Misbehaviour::Excessive => {
                self.confirm().await?;
                let data = vec![b'x'; OUTPUT_CHUNK_BYTES + 1];
                self.outbox.say(&GuestFrame::Output { stream: Stream::Stdout, data }).await
            }
            Misbehaviour::Silent => self.outbox.hang().await,
            Misbehaviour::Die => {
                self.outbox.babble(&[0, 0, 1, 0, 2]).await?;
                Err(Stop::Gone)
            }
        }
    }
}
