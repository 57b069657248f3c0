//! The process's life.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
};

use gateway::{GatewayError, Options};
use model::gateway::{Credential, FromGateway, MAX_LINE_BYTES, ToGateway};
use protocol::egress::Opening;
use serde_json::json;
use wire::BindingId;

use crate::world::{Setting, World, to_end};

#[tokio::test]
async fn it_ends_with_its_session_and_says_so_last() {
    let mut world = Setting::new(json!([]), &[]).start().await;
    let credential = Credential { value: "new".to_owned().into(), ..Default::default() };
    world.order(&ToGateway::Rotate { binding: BindingId::from_uuid(uuid::Uuid::from_u128(1)), credential }).await;
    world.http("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let said = world.end().await;
    assert_eq!(said.first(), Some(&FromGateway::Ready));
    assert_eq!(said.last(), Some(&FromGateway::Done { egress_bytes: 0 }));
    assert_eq!(said.len(), 3, "{said:?}");
}

#[tokio::test]
async fn without_its_server_it_ends_and_takes_its_streams_along() {
    let world = Setting::new(json!([]), &[]).start().await;
    let mut stream = world.open(Opening::Http);
    assert!(matches!(world.abandon().await, Err(GatewayError::ServerGone)));
    assert_eq!(to_end(&mut stream).await, "");
}

#[tokio::test]
async fn nothing_is_served_before_it_is_configured_and_what_cannot_be_read_ends_it() {
    let world = World::unconfigured(Options::default());
    assert!(matches!(world.abandon().await, Err(GatewayError::ServerGone)));
    let secret = "{\"type\":\"configure\",\"value\":\"hunter2\"}\n";
    for line in [&b"{}\n"[..], b"\xff\n", secret.as_bytes(), b"\n"] {
        let mut world = World::unconfigured(Options::default());
        world.say(line).await;
        let error = world.abandon().await.unwrap_err();
        assert!(matches!(error, GatewayError::Malformed), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
    let mut world = Setting::new(json!([]), &[]).start().await;
    world.order(&ToGateway::Configure(Box::new(Setting::new(json!(["0.0.0.0/0"]), &[]).spec()))).await;
    assert!(matches!(world.abandon().await, Err(GatewayError::Malformed)));
}

#[tokio::test]
async fn a_line_of_the_server_is_bounded() {
    let mut world = World::unconfigured(Options::default());
    world.say(&vec![b' '; MAX_LINE_BYTES]).await;
    assert!(matches!(world.abandon().await, Err(GatewayError::Malformed)));
}

/// Where the child finds its descriptors.
const CONTROL: i32 = 10;
const PIPE: i32 = 12;
/// Says that this process is the child.
const CHILD: &str = "ENCLAVE_TEST_GATEWAY_CHILD";

/// Not a test but the process that the next one looks at.
#[test]
#[ignore = "started by a_gateway_process_gives_up_what_it_does_not_need"]
#[expect(unsafe_code, reason = "inherited descriptors have no owner yet")]
fn the_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // SAFETY: the parent put them there for this process alone.
    let (control, pipe) = unsafe { (OwnedFd::from_raw_fd(CONTROL), OwnedFd::from_raw_fd(PIPE)) };
    let user = rustix::process::geteuid().is_root().then_some(65534);
    gateway::run(control, pipe, &Options { user, resolver: None }).unwrap();
    std::process::exit(0);
}

#[test]
#[expect(unsafe_code, reason = "the child's descriptors are put in place between fork and exec")]
fn a_gateway_process_gives_up_what_it_does_not_need() {
    let (control, its_control) = UnixStream::pair().unwrap();
    let (pipe, its_pipe) = UnixStream::pair().unwrap();
    let forgotten = std::fs::File::open("/dev/null").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "life::the_child", "--ignored", "--nocapture"]).env(CHILD, "1");
    let (from_control, from_pipe, from_forgotten) =
        (its_control.as_raw_fd(), its_pipe.as_raw_fd(), forgotten.as_raw_fd());
    // SAFETY: dup2 is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in [(from_control, CONTROL), (from_pipe, PIPE), (from_forgotten, 11), (from_forgotten, 40)] {
                if libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    drop((its_control, its_pipe));
    let mut line = serde_json::to_vec(&ToGateway::Configure(Box::new(Setting::new(json!([]), &[]).spec()))).unwrap();
    line.push(b'\n');
    (&control).write_all(&line).unwrap();
    let mut heard = BufReader::new(&control);
    let mut ready = String::new();
    heard.read_line(&mut ready).unwrap();
    assert_eq!(serde_json::from_str::<FromGateway>(&ready).unwrap(), FromGateway::Ready);

    let proc = format!("/proc/{}", child.id());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // It is the thread's and those of the threads that it starts; the test's is not the first of its process.
    let threads = std::fs::read_dir(format!("{proc}/task")).unwrap();
    let mut statuses = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    assert!(statuses.any(|status| status.contains("NoNewPrivs:\t1\n")));
    if rustix::process::geteuid().is_root() {
        assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Groups:"), "");
        assert_eq!(field("CapEff:"), "0000000000000000");
        // What cannot be dumped belongs to root, whoever runs it.
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{proc}/mem")).unwrap());
        assert_eq!(owner, 0);
        let open: Vec<String> = std::fs::read_dir(format!("{proc}/fd"))
            .unwrap()
            .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(!open.iter().skip(3).any(|file| file == "/dev/null"), "{open:?}");
    } else {
        eprintln!("SKIP the user of the gateway: this is not root");
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
}
