//! How many sessions a second the simulator can play, printed: it must not be what limits a load test of the platform.

use std::time::{Duration, Instant};

use backend::{
    SandboxSpec, SessionBackend, Shape,
    simulator::{Simulator, SimulatorConfig},
};
use model::{Language, limits::Limits};
use protocol::{Exit, GuestFrame, HostFrame, Start};

const SESSIONS: u32 = 20_000;

#[tokio::test]
async fn thousands_of_sessions_are_played_each_to_its_end() {
    let simulator = Simulator::new(SimulatorConfig::default());
    let shape = Shape { image: "default".into(), language: Language::Python, disk_bytes: 1 << 29, egress: false };
    let spec = SandboxSpec { limits: Limits::default(), gateway: None, grace: Duration::ZERO };
    let start = HostFrame::Start(Box::new(Start {
        session_id: "ses_1".into(),
        language: protocol::Language::Python,
        code: "# sim: stdout hello\\n\n# sim: result 42\nprint('hello')\nenclave.result(42)\n".into(),
        args: Vec::new(),
        env: Vec::new(),
        pids: 128,
        output_bytes: 1 << 20,
        disk_bytes: 1 << 30,
        entrypoint: None,
        interactive: false,
        stays: false,
    }));
    let began = Instant::now();
    for _ in 0..SESSIONS {
        let prepared = simulator.prepare(&shape).await.unwrap();
        let sandbox = simulator.assign(prepared, &spec).await.unwrap();
        let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
        sender.send(&start).await.unwrap();
        let mut frames = 0;
        let mut last = None;
        while let Some(frame) = receiver.next().await.unwrap() {
            frames += 1;
            last = Some(frame);
        }
        assert_eq!(frames, 4);
        assert_eq!(last, Some(GuestFrame::Exited { session_id: "ses_1".into(), exit: Exit::Code(0) }));
        simulator.wait(&sandbox.id).await.unwrap();
        simulator.observe(&sandbox.id).await.unwrap();
        assert!(simulator.destroy(&sandbox.id).await.unwrap().is_none());
    }
    let each = began.elapsed() / SESSIONS;
    println!("one session every {each:?}: {:.0} a second on one thread", 1.0 / each.as_secs_f64());
    assert!(simulator.list().await.unwrap().is_empty());
}
