//! Made, ended and removed: at any time, any number of times, by anyone.

use std::{io::Read as _, process::Stdio, time::Duration};

use backend::{ObserveError, PrepareError, Residue, SandboxId, SessionBackend as _, Shape, Termination};

use crate::support::{Host, host, node, python};

const SPIN: &str = "print('go', flush=True)\nwhile True: pass";

async fn sweep(host: &Host) {
    for id in host.gvisor.list().await.unwrap() {
        assert_eq!(host.gvisor.destroy(&id).await.unwrap(), Residue::none());
    }
    assert_eq!(host.gvisor.list().await.unwrap(), []);
    assert_eq!(host.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_sandbox_keeps_its_accounting_until_it_is_destroyed() {
    let Some(host) = host("a_killed_sandbox_keeps_its_accounting_until_it_is_destroyed").await else { return };
    let running = host.start_and_hear(&python(SPIN)).await;
    assert!(!host.processes(&running.id).is_empty());
    let gvisor = &host.gvisor;
    let (first, second) = tokio::join!(gvisor.wait(&running.id), gvisor.kill(&running.id));
    assert_eq!(first.unwrap(), Termination::Killed);
    second.unwrap();
    assert_eq!(host.processes(&running.id), [0_u32; 0]);
    gvisor.kill(&running.id).await.unwrap();
    assert_eq!(gvisor.wait(&running.id).await.unwrap(), Termination::Killed);
    let observation = gvisor.observe(&running.id).await.unwrap();
    assert!(observation.usage.cpu_ms > 0 && observation.usage.memory_peak_bytes > 1 << 20, "{observation:?}");
    assert_eq!(gvisor.observe(&running.id).await.unwrap(), observation);
    for _ in 0..2 {
        assert_eq!(gvisor.destroy(&running.id).await.unwrap(), Residue::none());
    }
    assert!(matches!(gvisor.wait(&running.id).await, Err(ObserveError::Gone(_))));
    assert!(matches!(gvisor.observe(&running.id).await, Err(ObserveError::Gone(_))));
    assert!(matches!(gvisor.kill(&running.id).await, Err(ObserveError::Gone(_))));
    sweep(&host).await;
}

#[tokio::test]
async fn a_running_sandbox_is_destroyed_and_its_waiters_are_told() {
    let Some(host) = host("a_running_sandbox_is_destroyed_and_its_waiters_are_told").await else { return };
    let running = host.start_and_hear(&python(SPIN)).await;
    let (ended, residue) = tokio::join!(host.gvisor.wait(&running.id), host.gvisor.destroy(&running.id));
    assert_eq!(ended.unwrap(), Termination::Killed);
    assert_eq!(residue.unwrap(), Residue::none());
    sweep(&host).await;
}

#[tokio::test]
async fn a_sandbox_whose_pipe_is_closed_ends_by_itself() {
    let Some(host) = host("a_sandbox_whose_pipe_is_closed_ends_by_itself").await else { return };
    let running = host.start_and_hear(&python(SPIN)).await;
    let id = running.id.clone();
    drop(running);
    let ended = tokio::time::timeout(Duration::from_secs(20), host.gvisor.wait(&id)).await.unwrap().unwrap();
    assert!(matches!(ended, Termination::Exited | Termination::Lost(_)), "{ended:?}");
    sweep(&host).await;
}

#[tokio::test]
async fn an_unknown_sandbox_leaves_nothing_and_an_unknown_image_is_refused() {
    let Some(host) = host("an_unknown_sandbox_leaves_nothing_and_an_unknown_image_is_refused").await else { return };
    let id = SandboxId::from_bits(77);
    assert_eq!(host.gvisor.destroy(&id).await.unwrap(), Residue::none());
    assert!(matches!(host.gvisor.kill(&id).await, Err(ObserveError::Gone(_))));
    let shape = Shape { image: "other".into(), ..python("").shape() };
    assert!(matches!(host.gvisor.prepare(&shape).await, Err(PrepareError::NoImage(_))));
    sweep(&host).await;
}

#[tokio::test]
async fn a_prepare_that_is_dropped_at_any_moment_leaves_nothing_unlisted() {
    let Some(host) = host("a_prepare_that_is_dropped_at_any_moment_leaves_nothing_unlisted").await else { return };
    for ms in [0, 1, 2, 4, 6, 8, 10, 15, 20, 30, 50, 80, 110, 140] {
        let prepare = host.gvisor.prepare(&python("").shape()).await_for(Duration::from_millis(ms)).await;
        drop(prepare);
        sweep(&host).await;
    }
}

trait AwaitFor: Future + Sized {
    /// Polls for this long, and drops it.
    async fn await_for(self, time: Duration) -> Option<Self::Output> {
        tokio::time::timeout(time, self).await.ok()
    }
}

impl<F: Future> AwaitFor for F {}

#[tokio::test]
async fn an_assign_that_is_dropped_leaves_nothing_unlisted() {
    let Some(host) = host("an_assign_that_is_dropped_leaves_nothing_unlisted").await else { return };
    let program = python("");
    let prepared = host.gvisor.prepare(&program.shape()).await.unwrap();
    let id = prepared.id.clone();
    drop(host.gvisor.assign(prepared, &program.spec()).await_for(Duration::ZERO).await);
    assert_eq!(host.gvisor.list().await.unwrap(), [id]);
    sweep(&host).await;
}

#[tokio::test]
async fn a_sandbox_that_died_while_it_waited_is_not_assigned() {
    let Some(host) = host("a_sandbox_that_died_while_it_waited_is_not_assigned").await else { return };
    let program = python("");
    let prepared = host.gvisor.prepare(&program.shape()).await.unwrap();
    host.gvisor.kill(&prepared.id).await.unwrap();
    assert!(matches!(host.gvisor.assign(prepared, &program.spec()).await, Err(backend::AssignError::Gone(_))));
    sweep(&host).await;
}

#[tokio::test]
async fn eight_sandboxes_at_once_do_not_meet() {
    let Some(host) = host("eight_sandboxes_at_once_do_not_meet").await else { return };
    let code = |n: usize| match n % 2 {
        0 => python(&format!("open('/tmp/n', 'w').write('{n}')\nprint(open('/tmp/n').read())")),
        _ => node(&format!(
            "require('fs').writeFileSync('/tmp/n', '{n}'); console.log(`${{require('fs').readFileSync('/tmp/n')}}`)"
        )),
    };
    let programs: Vec<_> = (0..8).map(code).collect();
    let runs = programs.iter().map(|program| host.run(program));
    for (n, ended) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(ended.seen.stdout, format!("{n}\n"), "{ended:?}");
        assert_eq!(ended.observation.exceeded, None);
    }
    sweep(&host).await;
}

#[tokio::test]
async fn a_planted_leftover_is_found_and_named_until_it_is_gone() {
    let Some(host) = host("a_planted_leftover_is_found_and_named_until_it_is_gone").await else { return };
    let running = host.start_and_hear(&python(SPIN)).await;
    let mut planted = std::process::Command::new("sh")
        .args(["-c", "echo; read line", "runsc-sandbox", running.id.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Before it runs it has no arguments.
    planted.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let Residue(found) = host.gvisor.destroy(&running.id).await.unwrap();
    planted.kill().unwrap();
    planted.wait().unwrap();
    assert_eq!(found, [format!("process {}", planted.id())]);
    assert_eq!(host.gvisor.list().await.unwrap(), std::slice::from_ref(&running.id));
    sweep(&host).await;
}
