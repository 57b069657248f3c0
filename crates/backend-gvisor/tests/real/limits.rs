//! Each limit ends a sandbox for its own reason, whatever the program tries.

use std::time::Duration;

use backend::{SandboxLimit, Termination};
use protocol::GuestLimit;

use crate::support::{Ended, MIB, host, node, python};

fn exceeded(ended: &Ended) -> Option<SandboxLimit> {
    match ended.termination {
        Some(Termination::Exceeded(limit)) => Some(limit),
        // Whoever met the full disk may have gone before the host looked.
        _ if ended.seen.exceeded.contains(&GuestLimit::Disk) => Some(SandboxLimit::Disk),
        _ => ended.observation.exceeded,
    }
}

#[tokio::test]
async fn a_spin_on_all_cores_ends_at_its_cpu_time() {
    let Some(host) = host("a_spin_on_all_cores_ends_at_its_cpu_time").await else { return };
    let code = "import os\nfor _ in range(3):\n    if os.fork() == 0: break\nwhile True: pass";
    let ended = host
        .run(&python(code).with(|limits| {
            limits.cpu_time_ms = Some(500);
            limits.cpu_millis = 2000;
        }))
        .await;
    println!("{ended:?}");
    assert_eq!(exceeded(&ended), Some(SandboxLimit::Cpu), "{ended:?}");
    // How late depends on what else the host runs; without the limit it would be 60,000.
    assert!((500..3000).contains(&ended.observation.usage.cpu_ms), "{ended:?}");
}

#[tokio::test]
async fn a_spin_is_slowed_down_to_its_cpu_rate() {
    let Some(host) = host("a_spin_is_slowed_down_to_its_cpu_rate").await else { return };
    let code = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < 2: pass\nprint('done')";
    let ended = host.run(&python(code).with(|limits| limits.cpu_millis = 250)).await;
    println!("{ended:?}");
    assert_eq!(ended.seen.exit, Some(0), "{ended:?}");
    assert!(ended.observation.usage.cpu_ms < 1100, "{ended:?}");
}

async fn memory(name: &str, program: crate::support::Program) {
    let Some(host) = host(name).await else { return };
    let ended = host.run(&program.with(|limits| limits.memory_bytes = 64 * MIB)).await;
    println!("{ended:?}");
    assert_eq!(exceeded(&ended), Some(SandboxLimit::Memory), "{ended:?}");
    assert!(ended.took < Duration::from_secs(20));
}

#[tokio::test]
async fn a_python_balloon_ends_at_its_memory() {
    let code = "keep = []\nwhile True: keep.append(bytearray(1 << 20))";
    memory("a_python_balloon_ends_at_its_memory", python(code)).await;
}

#[tokio::test]
async fn a_balloon_in_a_child_ends_the_sandbox() {
    let code = "import os, time\nif os.fork() == 0:\n    keep = []\n    while True: keep.append(bytearray(1 << 20))\ntime.sleep(1000)";
    memory("a_balloon_in_a_child_ends_the_sandbox", python(code)).await;
}

#[tokio::test]
async fn a_node_balloon_ends_at_its_memory() {
    let code = "const keep = []; while (true) keep.push(Buffer.alloc(1 << 20, 1));";
    memory("a_node_balloon_ends_at_its_memory", node(code)).await;
}

#[tokio::test]
async fn a_shared_memory_balloon_ends_at_its_memory() {
    let code = "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): m[at] = 1";
    memory("a_shared_memory_balloon_ends_at_its_memory", python(code)).await;
}

#[tokio::test]
async fn a_memfd_balloon_ends_at_its_memory() {
    let code = "import os\nf = os.memfd_create('x')\nwhile True: os.write(f, b'x' * (1 << 20))";
    memory("a_memfd_balloon_ends_at_its_memory", python(code)).await;
}

#[tokio::test]
async fn endless_small_files_stay_within_memory_or_disk() {
    let Some(host) = host("endless_small_files_stay_within_memory_or_disk").await else { return };
    let code = "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close()\n    i += 1";
    let program = python(code).with(|limits| {
        limits.memory_bytes = 64 * MIB;
        limits.cpu_time_ms = Some(60_000);
    });
    let ended = host.run(&program).await;
    println!("{ended:?}");
    assert!(matches!(exceeded(&ended), Some(SandboxLimit::Memory | SandboxLimit::Disk)), "{ended:?}");
}

async fn pids(name: &str, code: &str) {
    let Some(host) = host(name).await else { return };
    let ended = host.run(&python(code).with(|limits| limits.pids = 32)).await;
    println!("{ended:?}");
    let inside = ended.seen.exceeded.contains(&GuestLimit::Pids);
    assert!(inside || exceeded(&ended) == Some(SandboxLimit::Pids), "{ended:?}");
}

#[tokio::test]
async fn a_fork_bomb_is_an_overrun_of_processes() {
    pids(
        "a_fork_bomb_is_an_overrun_of_processes",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    )
    .await;
}

#[tokio::test]
async fn a_thread_bomb_is_an_overrun_of_processes() {
    let code = "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(1000,)).start()\n    except RuntimeError: pass";
    pids("a_thread_bomb_is_an_overrun_of_processes", code).await;
}

async fn disk(name: &str, path: &str) {
    let Some(host) = host(name).await else { return };
    let code = format!("f = open('{path}', 'wb')\nwhile True: f.write(b'x' * (1 << 20))");
    let ended = host
        .run(&python(&code).with(|limits| {
            limits.disk_bytes = 64 * MIB;
            limits.memory_bytes = 128 * MIB;
        }))
        .await;
    println!("{ended:?}");
    assert_eq!(exceeded(&ended), Some(SandboxLimit::Disk), "{ended:?}");
}

#[tokio::test]
async fn filling_the_workspace_is_an_overrun_of_disk() {
    disk("filling_the_workspace_is_an_overrun_of_disk", "/workspace/x").await;
}

#[tokio::test]
async fn filling_tmp_is_an_overrun_of_disk() {
    disk("filling_tmp_is_an_overrun_of_disk", "/tmp/x").await;
}

#[tokio::test]
async fn filling_shared_memory_files_is_an_overrun_of_disk() {
    disk("filling_shared_memory_files_is_an_overrun_of_disk", "/dev/shm/x").await;
}

#[tokio::test]
async fn files_larger_than_memory_are_written_and_read_back() {
    let Some(host) = host("files_larger_than_memory_are_written_and_read_back").await else { return };
    let code = "
f = open('/workspace/x', 'wb')
for i in range(300): f.write(bytes([i % 256]) * (1 << 20))
f.close()
f = open('/workspace/x', 'rb')
print(all(f.read(1 << 20) == bytes([i % 256]) * (1 << 20) for i in range(300)))";
    let program = python(code).with(|limits| {
        limits.memory_bytes = 128 * MIB;
        limits.disk_bytes = 512 * MIB;
    });
    let ended = host.run(&program).await;
    println!("{ended:?}");
    assert_eq!(ended.seen.stdout, "True\n", "{ended:?}");
    assert_eq!(ended.observation.exceeded, None);
}
