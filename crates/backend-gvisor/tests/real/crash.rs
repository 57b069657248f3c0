//! A server that is killed leaves nothing that runs, and nothing that the next one does not find.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use backend::{Residue, SessionBackend as _};

use crate::{
    out::{out, with_way_out},
    stand_in::{self, Mode},
    support::{Host, config, eventually, python, requirements},
};

const STATE: &str = "ENCLAVE_TEST_STATE";
const INSTANCE: &str = "ENCLAVE_TEST_INSTANCE";
const GATEWAY: &str = "ENCLAVE_TEST_GATEWAY";
const SANDBOXES: usize = 3;

#[tokio::test]
#[ignore = "the server that the test below kills"]
async fn server_to_be_killed() {
    let (Some(state), Some(instance)) = (env::var_os(STATE), env::var(INSTANCE).ok()) else { return };
    let (runsc, image) = requirements().unwrap();
    let mut config = config(runsc, image, state.into());
    config.instance = instance;
    config.gateway = env::var_os(GATEWAY).map(|binary| stand_in::program(binary.as_ref(), Mode::Serves));
    let host = Host::open(config).await;
    let mut running = Vec::new();
    for _ in 0..SANDBOXES {
        let program = with_way_out(python("print('go', flush=True)\nwhile True: pass"));
        running.push(host.start_and_hear(&program).await);
    }
    println!("\nREADY {}", running.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join(" "));
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn after_kill_9_sandboxes_die_and_the_next_server_finds_and_removes_what_is_left() {
    let name = "after_kill_9_sandboxes_die_and_the_next_server_finds_and_removes_what_is_left";
    // Only to learn whether this host can, and to have a name for the instance.
    let Some(out) = out(name, Mode::Serves).await else { return };
    let probe = &out.host;
    let state = tempfile::tempdir().unwrap();
    let mut server = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::server_to_be_killed", "--ignored", "--nocapture"])
        .envs([(STATE, state.path().as_os_str()), (INSTANCE, probe.config.instance.as_ref())])
        .env(GATEWAY, &out.binary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("READY ").map(str::to_owned));
    let ready = ready.expect("it has started its sandboxes");
    let mut ids: Vec<backend::SandboxId> = ready.split(' ').map(|id| id.parse().unwrap()).collect();
    ids.sort();
    assert_eq!(out.gateways().len(), SANDBOXES);
    server.kill().unwrap();
    server.wait().unwrap();

    let mut config = probe.config.clone();
    config.state_dir = state.path().into();
    let next = Host::open(config).await;
    eventually("no process is left", || ids.iter().all(|id| next.processes(id).is_empty())).await;
    eventually("no gateway is left", || out.gateways().is_empty()).await;
    assert_eq!(next.gvisor.list().await.unwrap(), ids);
    for id in &ids {
        assert_eq!(next.gvisor.destroy(id).await.unwrap(), Residue::none());
    }
    assert_eq!(next.gvisor.list().await.unwrap(), []);
    assert_eq!(next.traces(), Vec::<String>::new());
}
