//! Measures what this backend takes:
//! `ENCLAVE_IMAGE_DIR=... cargo run --release -p backend-gvisor --example boot [N [GATEWAY ARGUMENT...]]`. With the program of
//! a gateway, as in `enclave gateway`, the sandboxes have a way out.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use backend::{GatewayProgram, SandboxSpec, SessionBackend as _, Shape};
use backend_gvisor::{Gvisor, GvisorConfig, ImageRef, find_runsc};
use model::{
    Language,
    egress::Policy,
    gateway::{GatewayLimits, GatewaySpec},
    limits::Limits,
};
use protocol::{GuestFrame, HostFrame, Start};

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("{:6.1} ms ({:.1} to {:.1})", ms(times[times.len() / 2]), ms(times[0]), ms(times[times.len() - 1]))
}

fn start() -> Start {
    Start {
        session_id: "ses_1".into(),
        language: protocol::Language::Python,
        code: "print('hello')".into(),
        args: Vec::new(),
        env: Vec::new(),
        pids: 128,
        output_bytes: 1 << 20,
        disk_bytes: 1 << 30,
        entrypoint: None,
        interactive: false,
        stays: false,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let rounds: usize = words.next().map_or(Ok(20), |rounds| rounds.parse())?;
    let program = words.next().map(|program| GatewayProgram { program: program.into(), arguments: words.collect() });
    let gateway = match program {
        Some(_) => Some(GatewaySpec {
            session: "ses_00000000-0000-7000-8000-000000000000".parse()?,
            policy: Policy::default(),
            limits: GatewayLimits::default(),
            bindings: Vec::new(),
        }),
        None => None,
    };
    let images = std::env::var_os("ENCLAVE_IMAGE_DIR").map_or_else(|| "/var/lib/enclave/images".into(), PathBuf::from);
    let state = tempfile::tempdir()?;
    let runsc = find_runsc().ok_or("no runsc")?;
    let mut config = GvisorConfig::new(runsc, state.path().into(), format!("{:x}", std::process::id()));
    config.images.push(ImageRef { name: "default".into(), root: images.join("default/root.erofs") });
    config.gateway = program;
    let began = Instant::now();
    let gvisor = Gvisor::open(config).await?;
    println!("open     {:6.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    let egress = gateway.is_some();
    let shape = Shape { image: "default".into(), language: Language::Python, disk_bytes: 512 << 20, egress };
    let spec = SandboxSpec { limits: Limits::default(), gateway, grace: Duration::ZERO };
    let mut times: [Vec<Duration>; 5] = Default::default();
    for _ in 0..rounds {
        // Nothing of the last round is left to help or to hinder.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut last = Instant::now();
        let mut lap = |index: usize| {
            times[index].push(last.elapsed());
            last = Instant::now();
        };
        let prepared = gvisor.prepare(&shape).await?;
        lap(0);
        let sandbox = gvisor.assign(prepared, &spec).await?;
        lap(1);
        let id = sandbox.id.clone();
        let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
        sender.send(&HostFrame::Start(Box::new(start()))).await?;
        while !matches!(receiver.next().await?, Some(GuestFrame::Output { .. })) {}
        lap(2);
        gvisor.kill(&id).await?;
        lap(3);
        assert!(gvisor.destroy(&id).await?.is_none());
        lap(4);
    }
    for (name, times) in ["prepare", "assign", "output", "kill", "destroy"].into_iter().zip(times) {
        println!("{name:8} {}", median(times));
    }
    Ok(())
}
