//! Turns on a warm sandbox, over HTTP, next to `runsc exec` of the same code in a warm sandbox without a server.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use client::Client;
use serde::Serialize;
use wire::{CreateSession, CreateTurn, ExecMode, TurnStatus};

use super::{Spread, bare::Bare, spread};

/// The code of a turn, and of the program that prints the same.
const CODE: &str = "1+1";
const PROGRAM: &str = "print(1+1)";
/// Rounds that fill caches.
const WARM_UP: usize = 20;
/// How long the warm sandbox without a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Turns {
    count: usize,
    turn_ms: Spread,
    runsc_exec_ms: Spread,
}

/// Ten turns for each `runsc exec`, which costs as much as dozens of them.
pub(super) async fn measure(client: &Client, runs: usize) -> anyhow::Result<Turns> {
    let warm = Warm::start()?;
    let request = CreateSession { exec_mode: ExecMode::Interactive, ..CreateSession::default() };
    let session = client.create(&request).await?.id;
    let asked = CreateTurn { code: CODE.into(), timeout_ms: None };
    let (mut turns, mut execs) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + runs * 10 {
        let began = Instant::now();
        let turn = client.run_turn(session, &asked).await?;
        let took = began.elapsed();
        let value = turn.value.and_then(|value| value.plain);
        ensure!(turn.status == TurnStatus::Completed && value.as_deref() == Some("2"), "a turn gave {value:?}");
        if round >= WARM_UP {
            turns.push(took);
            if round % 10 == 0 {
                execs.push(warm.exec()?);
            }
        }
    }
    client.delete(session).await?;
    Ok(Turns { count: turns.len(), turn_ms: spread(turns), runsc_exec_ms: spread(execs) })
}

pub(super) fn print(figures: &Turns) {
    let line = |name: &str, spread: Spread, more: &str| {
        println!("  {name:28} p50 {:7.2} ms   p90 {:7.2} ms{more}", spread.p50, spread.p90);
    };
    println!("gvisor, warm, {} turns of `{CODE}` over HTTP, and runsc exec of the same in between:", figures.count);
    line("a turn", figures.turn_ms, "   (target: p50 at most 5)");
    line("runsc exec", figures.runsc_exec_ms, "");
}

/// A sandbox that sleeps.
struct Warm {
    bare: Bare,
    child: Child,
    name: String,
}

impl Warm {
    fn start() -> anyhow::Result<Self> {
        let bare = Bare::of(&["sleep", "3600"])?;
        let name = format!("bench-warm-{}", std::process::id());
        let mut run = bare.command("run");
        let child = run.arg("--bundle").arg(bare.bundle()).arg(&name);
        let child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let warm = Self { child: child.context("start runsc")?, bare, name };
        let began = Instant::now();
        while warm.exec().is_err() {
            ensure!(began.elapsed() < PATIENCE, "the warm sandbox does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(warm)
    }

    fn exec(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut exec = self.bare.command("exec");
        let output = exec.arg(&self.name).args(["python3", "-c", PROGRAM]).stdin(Stdio::null()).output()?;
        let took = began.elapsed();
        ensure!(output.stdout == b"2\n", "runsc exec: {}", String::from_utf8_lossy(&output.stderr));
        Ok(took)
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let kill: &mut Command = &mut self.bare.command("kill");
        let _ = kill.args([self.name.as_str(), "KILL"]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        let _ = self.bare.command("delete").arg(&self.name).stderr(Stdio::null()).status();
    }
}
