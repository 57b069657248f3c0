//! Terminals on every backend that is here, over HTTP and real sockets: what a person or an agent does with one, and what a
//! hostile program makes of it.

use std::time::{Duration, Instant};

use client::{Client, TerminalOutput, TerminalSocket};
use serde_json::json;
use wire::{
    AuditType, CreateSession, CreateTerminal, KillReason, Outcome, Phase, Session, SessionId, Terminal, TerminalExit,
    TerminalSize, TerminalState,
};

use crate::server::{Server, backends};

/// How long what has to come may take.
const PATIENCE: Duration = Duration::from_mins(2);
const MIB: u64 = 1024 * 1024;

struct Scene {
    server: Server,
    client: Client,
}

impl Scene {
    async fn on(backend: &str) -> Self {
        let server = Server::start(backend, &[]).await;
        let client = server.client();
        Self { server, client }
    }

    async fn on_gvisor(test: &str) -> Option<Self> {
        if backends(test).contains(&"gvisor") { Some(Self::on("gvisor").await) } else { None }
    }

    /// A session whose program waits.
    async fn session(&self, request: serde_json::Value) -> SessionId {
        let mut request: CreateSession = serde_json::from_value(request).unwrap();
        request.code = Some("# sim: sleep 10m\nimport time\ntime.sleep(600)".into());
        request.limits.wall_clock_ms = Some(300_000);
        let id = self.client.create(&request).await.unwrap().id;
        let deadline = Instant::now() + PATIENCE;
        while self.shown(id).await.phase != Phase::Running {
            assert!(Instant::now() < deadline, "it does not run");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        id
    }

    async fn shown(&self, id: SessionId) -> Session {
        self.client.session(id).await.unwrap()
    }

    async fn open(&self, id: SessionId, command: &[&str]) -> Screen {
        let command = command.iter().map(ToString::to_string).collect();
        let env = [("PS1".to_owned(), "$ ".to_owned())].into();
        let asked = CreateTerminal { command, env, ..CreateTerminal::default() };
        let terminal = self.client.open_terminal(id, &asked).await.unwrap();
        let socket = self.client.attach(id, terminal.id, None);
        Screen { socket, terminal, seen: Vec::new() }
    }
}

/// A terminal, and somebody at it.
struct Screen {
    socket: TerminalSocket,
    terminal: Terminal,
    seen: Vec<u8>,
}

impl Screen {
    async fn next(&mut self) -> TerminalOutput {
        let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more behind {:?}", String::from_utf8_lossy(&self.seen)));
        let next = next.unwrap();
        if let TerminalOutput::Bytes(data) = &next {
            self.seen.extend(data);
        }
        next
    }

    async fn types(&mut self, text: &str) {
        self.socket.input(text.as_bytes()).await.unwrap();
    }

    /// Waits for a text, and forgets what came up to it.
    async fn expect(&mut self, text: &str) {
        println!("{text:?}");
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                self.seen = seen[at + text.len()..].into();
                return;
            }
            let next = self.next().await;
            assert!(matches!(next, TerminalOutput::Bytes(_)), "{next:?} without {text:?}: {seen}");
        }
    }

    /// Types the character of a signal until there is a prompt: a program that is just being executed may miss one.
    async fn signals(&mut self, key: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.types(key).await;
            if tokio::time::timeout(Duration::from_secs(2), self.expect("$ ")).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "no prompt after {key:?}");
        }
    }

    async fn end(&mut self) -> TerminalOutput {
        loop {
            let next = self.next().await;
            if !matches!(next, TerminalOutput::Bytes(_)) {
                return next;
            }
        }
    }
}

fn code(code: i32) -> TerminalOutput {
    TerminalOutput::Exited(TerminalExit { code: Some(code), signal: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_is_used_resized_left_taken_up_again_and_ended() {
    for backend in backends("a_shell_is_used") {
        let scene = Scene::on(backend).await;
        let id = scene.session(json!({})).await;
        let mut shell = scene.open(id, &["sh"]).await;
        shell.expect("$ ").await;
        shell.types("echo hello\r").await;
        shell.expect("\r\nhello\r\n$ ").await;
        shell.types("stty size\r").await;
        shell.expect("24 80\r\n").await;
        shell.socket.resize(TerminalSize { rows: 50, cols: 132 }).await.unwrap();
        shell.types("stty size\r").await;
        shell.expect("50 132\r\n").await;
        shell.expect("$ ").await;
        shell.seen.clear();
        // The connection breaks, again and again, and no byte is lost or comes twice.
        shell.types("seq 1 50000\r").await;
        let last = "50000\r\n$ ";
        let mut cuts = 0_usize;
        while !shell.seen.ends_with(last.as_bytes()) {
            shell.next().await;
            if shell.seen.len() / 40_000 > cuts {
                cuts = shell.seen.len() / 40_000;
                shell.socket.cut();
            }
        }
        assert!(cuts >= 3, "{cuts}");
        let numbers: String = (1..=50_000).map(|number| format!("{number}\r\n")).collect();
        let seen = String::from_utf8_lossy(&shell.seen);
        assert!(seen == format!("seq 1 50000\r\n{numbers}$ "), "{backend}: {} bytes", seen.len());
        // A second one sees the same, and types.
        let other = scene.client.attach(id, shell.terminal.id, None);
        let mut other = Screen { socket: other, terminal: shell.terminal.clone(), seen: Vec::new() };
        other.expect(last).await;
        other.types("exit 7\r").await;
        assert_eq!(shell.end().await, code(7));
        assert_eq!(other.end().await, code(7));
        let shown = scene.client.terminal(id, shell.terminal.id).await.unwrap();
        assert_eq!((shown.state, shown.exit_code), (TerminalState::Exited, Some(7)));
        let mut doomed = scene.open(id, &["sh"]).await;
        doomed.expect("$ ").await;
        scene.client.close_terminal(id, doomed.terminal.id).await.unwrap();
        assert!(matches!(doomed.end().await, TerminalOutput::Exited(_)));
        let mut last = scene.open(id, &["sh"]).await;
        last.expect("$ ").await;
        scene.client.delete(id).await.unwrap();
        // Its connection is taken up again, and refused: there is no session any more.
        let gone = tokio::time::timeout(PATIENCE, last.socket.next()).await.unwrap().unwrap_err();
        assert_eq!(gone.problem().unwrap().code, wire::ErrorCode::WrongState);
        let events = scene.client.audit(id, None).await.unwrap().items;
        let count = |kind| events.iter().filter(|event| event.kind == kind).count();
        assert_eq!((count(AuditType::TerminalOpened), count(AuditType::TerminalClosed)), (3, 3), "{backend}");
        scene.server.audit_verifies().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_shell_has_jobs_the_programs_files_and_environment_and_nothing_of_ours() {
    let Some(scene) = Scene::on_gvisor("a_real_shell").await else { return };
    let id = scene.session(json!({"env": {"COLOUR": "blue"}})).await;
    let mut shell = scene.open(id, &[]).await;
    shell.expect("$ ").await;
    shell.types("echo $0-$BASH_VERSION; exit\r").await;
    shell.expect("/bin/bash-").await;
    assert_eq!(shell.end().await, code(0));
    // One that does not draw its own lines.
    let mut shell = scene.open(id, &["sh"]).await;
    shell.expect("$ ").await;
    shell.types("tty; id -u; pwd; echo $COLOUR $TERM $ENCLAVE_SESSION_ID\r").await;
    shell.expect("\r\n/dev/pts/").await;
    shell.expect(&format!("\r\n65534\r\n/workspace\r\nblue xterm-256color {id}\r\n")).await;
    shell.types("echo left > made.txt; sh -c 'echo be''gun; exec sleep 600'\r").await;
    shell.expect("begun\r\n").await;
    shell.signals("\x03").await;
    // gVisor's terminals hand over the character, too: it must not be a part of what is typed next.
    shell.types("\recho ali''ve; sh -c 'echo be''gun; exec sleep 600'\r").await;
    shell.expect("alive\r\nbegun\r\n").await;
    shell.signals("\x1a").await;
    shell.types("\rkill %1; fg; echo go''ne\r").await;
    shell.expect("gone\r\n$ ").await;
    // Descriptors of ours, capabilities, and what of the runner can be reached.
    shell.types("ls -m /proc/$$/fd; grep -E '^(Cap(Prm|Eff)|NoNewPrivs|Seccomp):' /proc/self/status\r").await;
    // 10 is its own, of the terminal.
    shell.expect("\r\n0, 1, 10, 2\r\n").await;
    shell.expect("CapPrm:\t0000000000000000\r\nCapEff:\t0000000000000000\r\n").await;
    shell
        .types("kill -9 1; kill -STOP 1; echo tri''ed; mount -t tmpfs none /tmp; unshare -U true; echo do''ne\r")
        .await;
    shell.expect("Operation not permitted\r\n").await;
    shell.expect("tried\r\n").await;
    shell.expect("done\r\n").await;
    shell.types("cat made.txt; exit 3\r").await;
    shell.expect("left\r\n").await;
    assert_eq!(shell.end().await, code(3));
    let refused = CreateTerminal { command: vec!["no-such-program".into()], ..CreateTerminal::default() };
    let refused = scene.client.open_terminal(id, &refused).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().errors[0].field, "command[0]");
    assert_eq!(scene.shown(id).await.phase, Phase::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_terminal_starts_counts_and_a_closed_one_leaves_nothing() {
    let Some(scene) = Scene::on_gvisor("what_a_terminal_starts").await else { return };
    let id = scene.session(json!({"limits": {"pids": 64}})).await;
    let mut shell = scene.open(id, &["sh"]).await;
    shell.expect("$ ").await;
    shell.types("sh -c \"trap '' HUP TERM; echo de''af; sleep 600; sleep 600\" & sleep 599 & cat\r").await;
    shell.expect("deaf\r\n").await;
    scene.client.close_terminal(id, shell.terminal.id).await.unwrap();
    let mut witness = scene.open(id, &["sh"]).await;
    witness.expect("$ ").await;
    witness
        .types("ls /proc/[0-9]*/cmdline | while read f; do tr '\\0' ' ' < $f; echo; done | grep -c '[s]leep'\r")
        .await;
    witness.expect("\r\n0\r\n").await;
    // More than there may be of the session, and it is ended for it.
    witness.types("for n in $(seq 200); do sleep 600 & done\r").await;
    let result = scene.client.result(id, PATIENCE).await.unwrap();
    assert_eq!((result.outcome, result.kill_reason), (Outcome::Killed, Some(KillReason::PidsExceeded)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_floods_while_nobody_looks_leaves_the_server_as_it_is() {
    for backend in backends("a_program_that_floods") {
        let scene = Scene::on(backend).await;
        let id = scene.session(json!({})).await;
        let mut witness = scene.open(id, &["sh"]).await;
        witness.expect("$ ").await;
        let mut floods = Vec::new();
        for _ in 0..7 {
            floods.push(scene.open(id, &["seq", "1", "100000000"]).await.terminal);
        }
        let before = scene.server.resident();
        // Each time around goes through the same pipe: what could come by then has come.
        for turn in 0..50 {
            witness.types(&format!("echo turn {turn}\r")).await;
            witness.expect(&format!("\r\nturn {turn}\r\n$ ")).await;
        }
        let grown = scene.server.resident().saturating_sub(before);
        assert!(grown < 32 * MIB, "{backend}: {grown} bytes for {} floods", floods.len());
        let ninth = CreateTerminal { command: vec!["sh".into()], ..CreateTerminal::default() };
        let refused = scene.client.open_terminal(id, &ninth).await.unwrap_err();
        assert_eq!(refused.problem().unwrap().code, wire::ErrorCode::TooManyTerminals);
        for flood in floods {
            scene.client.close_terminal(id, flood.id).await.unwrap();
        }
        assert_eq!(scene.shown(id).await.phase, Phase::Running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_paste_arrives_whole_in_a_program_that_reads_it() {
    let Some(scene) = Scene::on_gvisor("a_large_paste").await else { return };
    let id = scene.session(json!({})).await;
    let script = "stty raw -echo; echo ready; head -c 3000000 | tee copy | wc -c; sha256sum copy";
    let mut reader = scene.open(id, &["sh", "-c", script]).await;
    reader.expect("ready").await;
    let text = "0123456789abcdef\n".repeat(3_000_000 / 17 + 1);
    reader.types(&text[..3_000_000]).await;
    reader.expect("3000000").await;
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&text.as_bytes()[..3_000_000]));
    reader.expect(&digest).await;
    assert_eq!(reader.end().await, code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_types_keeps_a_conversation_alive_and_who_only_looks_does_not() {
    let scene = Scene::on("simulator").await;
    let request = json!({"execMode": "interactive", "interactive": {"idleTtlMs": 8000}});
    let request: CreateSession = serde_json::from_value(request).unwrap();
    let id = scene.client.create(&request).await.unwrap().id;
    let deadline = Instant::now() + PATIENCE;
    while scene.shown(id).await.phase != Phase::Running {
        assert!(Instant::now() < deadline, "it does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut shell = scene.open(id, &["sh"]).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        shell.expect("$ ").await;
        shell.types("\r").await;
    }
    assert_eq!(scene.shown(id).await.phase, Phase::Running);
    // It stays attached, and is silent.
    let result = scene.client.result(id, PATIENCE).await.unwrap();
    assert_eq!(result.kill_reason, Some(KillReason::IdleTtlExceeded));
}
