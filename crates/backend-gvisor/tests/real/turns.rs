//! Turns in real sandboxes: what the suite of every backend does not ask.

use std::time::{Duration, Instant};

use backend::{
    SandboxId, SessionBackend as _,
    channel::{Receiver, Sender},
};
use model::Language;
use protocol::{GuestFrame, HostFrame, Start, Turn};

use crate::support::{Host, PATIENCE, Program, host, python};

/// Far above what a warm turn takes on a machine that does nothing else, and far below starting anything.
const WARM: Duration = Duration::from_millis(50);
const TURNS: u32 = 200;

struct Conversation {
    id: SandboxId,
    sender: Sender,
    receiver: Receiver,
    number: u32,
}

impl Conversation {
    async fn start(host: &Host, language: Language) -> Self {
        let program = Program { language, ..python("") };
        let prepared = host.gvisor.prepare(&program.shape()).await.unwrap();
        let sandbox = host.gvisor.assign(prepared, &program.spec()).await.unwrap();
        let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
        let start = Start {
            session_id: "ses_1".into(),
            language: match language {
                Language::Python => protocol::Language::Python,
                Language::Node => protocol::Language::Node,
            },
            code: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            pids: program.limits.pids,
            output_bytes: program.limits.output_bytes,
            disk_bytes: program.limits.disk_bytes,
            entrypoint: None,
            interactive: true,
            stays: false,
        };
        sender.send(&HostFrame::Start(Box::new(start))).await.unwrap();
        let started = receiver.next().await.unwrap();
        assert!(matches!(started, Some(GuestFrame::Started { .. })), "{started:?}");
        Self { id: sandbox.id, sender, receiver, number: 0 }
    }

    async fn begin(&mut self, code: &str) {
        self.number += 1;
        self.sender.send(&HostFrame::Turn(Turn { number: self.number, code: code.into() })).await.unwrap();
    }

    async fn next(&mut self) -> GuestFrame {
        let frame = tokio::time::timeout(PATIENCE, self.receiver.next()).await.unwrap().unwrap();
        frame.unwrap_or_else(|| panic!("ended in turn {}", self.number))
    }

    async fn turned(&mut self) -> String {
        loop {
            if let GuestFrame::Turned(turned) = self.next().await {
                return String::from_utf8(turned.report).unwrap();
            }
        }
    }

    /// Begins a turn, and interrupts it once it has written something.
    async fn interrupt(&mut self, code: &str) -> String {
        self.begin(code).await;
        while !matches!(self.next().await, GuestFrame::Output { .. }) {}
        self.sender.send(&HostFrame::Interrupt { turn: self.number }).await.unwrap();
        self.turned().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_turn_takes_milliseconds() {
    let Some(host) = host("a_warm_turn_takes_milliseconds").await else { return };
    for language in [Language::Python, Language::Node] {
        let mut talk = Conversation::start(&host, language).await;
        let mut took = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            talk.begin("1 + 1").await;
            let report = talk.turned().await;
            assert!(report.contains(r#""text/plain":"2""#), "{report}");
            took.push(began.elapsed());
        }
        took.sort();
        let [median, late] = [took[took.len() / 2], took[took.len() * 95 / 100]];
        println!("{}: a turn takes {median:?}, one in twenty {late:?} or more", language.as_str());
        assert!(median < WARM, "{median:?}");
        host.reclaim(&talk.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_turn_waits_for_it_is_interrupted_and_its_variables_are_kept() {
    let Some(host) = host("whatever_a_turn_waits_for_it_is_interrupted").await else { return };
    let in_python = [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import subprocess; subprocess.run(['sleep', '1000'])",
        "import asyncio; await asyncio.sleep(1000)",
        "import threading; threading.Event().wait()",
        "while True: print('more')",
    ];
    let in_node = [
        "while (true) {}",
        "require('child_process').execSync('echo in; exec sleep 1000', { stdio: 'inherit' })",
        "await new Promise((done) => setTimeout(done, 1000000))",
        "await 1; for (;;) {}",
        "for (;;) console.log('more')",
    ];
    for (language, set, endless) in [
        (Language::Python, "x = 41\nprint('in', flush=True)\n", &in_python[..]),
        (Language::Node, "var x = 41;\nconsole.log('in');\n", &in_node[..]),
    ] {
        let mut talk = Conversation::start(&host, language).await;
        for code in endless {
            let head = if code.contains("echo in") { "" } else { set };
            let report = talk.interrupt(&format!("{head}{code}")).await;
            assert!(report.starts_with(r#"{"status":"interrupted""#), "{code}: {report}");
            talk.begin("x + 1").await;
            let report = talk.turned().await;
            assert!(report.contains(r#""text/plain":"42""#), "{code}: {report}");
        }
        host.reclaim(&talk.id).await;
    }
}
