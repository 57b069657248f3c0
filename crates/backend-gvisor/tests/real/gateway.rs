//! The process of a gateway: what it is on the host, when it ends, and what its end means inside.

use std::fs;

use backend::{AssignError, GatewayError, SessionBackend as _};

use crate::{
    out::{clean, out, with_way_out},
    stand_in::Mode,
    support::{PATIENCE, eventually, python},
};

#[tokio::test]
async fn what_the_gateway_refuses_breaks_off_and_without_a_gateway_nothing_listens() {
    let name = "what_the_gateway_refuses_breaks_off_and_without_a_gateway_nothing_listens";
    let Some(out) = out(name, Mode::Refuses).await else { return };
    let code = r"
import socket
errors = []
for to in [('1.2.3.4', 80), ('127.0.0.53', 3128)]:
    try: errors.append(socket.create_connection(to, 20).recv(10))
    except OSError as error: errors.append(error.strerror)
print('ready', flush=True)
while errors[-1] != 'Connection refused':
    try: errors.append(socket.create_connection(('1.2.3.4', 80), 20).recv(1))
    except OSError as error: errors.append(error.strerror)
print(sorted(set(errors)))
";
    let mut running = out.host.start_and_hear(&with_way_out(python(code))).await;
    let mut gateway = running.gateway.take().unwrap();
    let [pid] = out.gateways()[..] else { panic!("not one gateway") };
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(gateway.next().await.is_none());
    let ended = out.host.finish(running).await;
    assert_eq!(clean(&ended), "['Connection refused', 'Connection reset by peer']\n");
}

#[tokio::test]
async fn a_gateway_that_fails_fails_the_assignment_or_is_ended() {
    let Some(out) = out("a_gateway_that_fails_fails_the_assignment_or_is_ended", Mode::Dies).await else { return };
    assert!(!out.host.gvisor.capabilities().egress_allowlist);
    let program = with_way_out(python(""));
    let prepared = out.host.gvisor.prepare(&program.shape()).await.unwrap();
    let id = prepared.id.clone();
    let failed = out.host.gvisor.assign(prepared, &program.spec()).await.unwrap_err();
    assert!(matches!(failed, AssignError::Gateway(GatewayError::Ended)), "{failed:?}");
    out.host.reclaim(&id).await;
    assert_eq!(out.host.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_gateway_that_babbles_is_ended() {
    let Some(out) = out("a_gateway_that_babbles_is_ended", Mode::Babbles).await else { return };
    let code =
        "import socket\nsocket.create_connection(('1.2.3.4', 80), 20)\nprint('go', flush=True)\nwhile True: pass";
    let mut running = out.host.start_and_hear(&with_way_out(python(code))).await;
    let mut gateway = running.gateway.take().unwrap();
    let end = async { while gateway.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.unwrap();
    eventually("it is killed and reaped", || out.host.traces().iter().all(|trace| !trace.contains("zombie"))).await;
    out.host.reclaim(&running.id).await;
}

#[tokio::test]
async fn a_gateway_is_a_user_of_its_own_with_two_sockets_and_goes_with_its_sandbox() {
    let name = "a_gateway_is_a_user_of_its_own_with_two_sockets_and_goes_with_its_sandbox";
    let Some(out) = out(name, Mode::Serves).await else { return };
    assert!(out.host.gvisor.capabilities().egress_allowlist);
    let running = out.host.start_and_hear(&with_way_out(python("print('go', flush=True)\nwhile True: pass"))).await;
    let [pid] = out.gateways()[..] else { panic!("not one gateway: {:?}", out.gateways()) };
    let pid = pid.as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for set in ["CapPrm", "CapEff", "CapAmb", "CapInh"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    let user = |pid: &dyn std::fmt::Display| -> u32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok()).unwrap()
    };
    assert!(user(&pid) >= 0x7000_0000);
    assert!(out.host.processes(&running.id).iter().all(|other| user(other) != user(&pid)));
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| {
        fs::read_link(entry.unwrap().path()).unwrap().display().to_string().split(':').next().unwrap().to_owned()
    });
    let mut descriptors: Vec<String> = descriptors.collect();
    descriptors.sort();
    let sockets = descriptors.iter().filter(|kind| *kind == "socket").count();
    // The control socket twice: the stand-in has cloned it.
    assert!((2..=3).contains(&sockets) && descriptors.iter().all(|kind| kind != "/"), "{descriptors:?}");
    out.host.reclaim(&running.id).await;
    assert_eq!(out.gateways(), []);
    assert_eq!(out.host.traces(), Vec::<String>::new());
}
