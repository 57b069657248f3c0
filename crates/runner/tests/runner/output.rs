use std::io::Read as _;
use std::process::{Command, Stdio};

use protocol::{Decoder, Exit, GuestFrame, GuestLimit, HostFrame, Language, OUTPUT_CHUNK_BYTES};

use crate::support::{NOBODY, eventually, has, is_root, node, python};

#[test]
fn five_mebibytes_on_each_stream_arrive_complete_and_in_order() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let code = "import sys\nfor i in range(327680):\n    sys.stdout.write(f'{i:015}\\n')\n    sys.stderr.write(f'{i:015}\\n')\n";
    let run = python(code).run();
    let expected = (0..327_680).map(|i| format!("{i:015}")).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(expected.len(), 5 << 20);
    assert_eq!(run.exit(), Exit::Code(0));
    assert!(run.stdout() == expected && run.stderr() == expected);
    assert!(
        run.frames
            .iter()
            .all(|frame| !matches!(frame, GuestFrame::Output { data, .. } if data.len() > OUTPUT_CHUNK_BYTES))
    );
}

#[test]
fn what_node_wrote_before_process_exit_arrives() {
    if !has(Language::Node, module_path!()) {
        return;
    }
    let code = "for (let i = 0; i < 327680; i += 1) console.log(String(i).padStart(15, '0')); process.on('exit', () => console.log('end'));";
    let run = node(code).run();
    let stdout = run.clean();
    assert!(stdout.len() == (5 << 20) + 4 && stdout.ends_with("000000000327679\nend\n"));
}

#[test]
fn lines_stream_live_and_a_line_without_end_comes_through() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let code = "import os, sys, time\nprint('one')\nwhile not os.path.exists('go'): time.sleep(0.01)\n\
                sys.stdout.write('x' * (1 << 20)); sys.stdout.flush()\nprint('', end='')\nsys.stderr.write('partial')";
    let case = python(code);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("one\n");
    std::fs::write(case.workspace().join("go"), "").expect("writes");
    let run = open.finish();
    assert_eq!((run.stdout().len(), run.stderr().as_str()), (4 + (1 << 20), "partial"));
}

#[test]
fn output_up_to_the_limit_passes_and_one_byte_more_is_an_overrun() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let code = |count: u32| format!("import os\nos.write(2, b'e' * 400)\nos.write(1, b'o' * {count})");
    let exact = python(&code(600)).with(|start| start.output_bytes = 1000).run();
    assert_eq!((exact.exceeded(), exact.stdout().len() + exact.stderr().len()), (vec![], 1000));
    let over = python(&code(601)).with(|start| start.output_bytes = 1000).run();
    assert_eq!((over.exceeded(), over.stdout().len() + over.stderr().len()), (vec![GuestLimit::Output], 1000));
    assert_eq!(over.exit(), Exit::Code(0));
}

#[test]
fn a_flood_is_cut_off_at_the_limit_and_said_once() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let code = "import os\nwhile True: os.write(1, b'x' * 65536)";
    let case = python(code).with(|start| start.output_bytes = 1 << 20);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for_exceeded(GuestLimit::Output);
    // The host's part: it ends the sandbox. Until then the program stands still, and nothing more is sent.
    open.hang_up();
    let run = open.finish();
    assert_eq!((run.exceeded(), run.stdout().len()), (vec![GuestLimit::Output], 1 << 20));
}

#[test]
fn a_program_that_closes_its_output_still_has_a_result() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let run = python("import os\nos.close(1); os.close(2)\nenclave.result('kept')\nos._exit(4)").run();
    assert_eq!((run.exit(), run.result().as_deref()), (Exit::Code(4), Some("\"kept\"")));
}

#[test]
fn a_slow_host_slows_the_program_down_and_costs_no_memory() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let code =
        "import os\nfor i in range(512):\n    os.write(1, b'x' * 65536)\n    open('progress', 'w').write(str(i))";
    let case = python(code);
    let mut command = Command::new(case.runner());
    command
        .args(&case.options)
        .env("PATH", &case.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if is_root() {
        std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
    }
    let mut child = command.spawn().expect("starts");
    let start = protocol::encode(&HostFrame::Start(Box::new(case.start.clone()))).expect("encodes");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, &start).expect("writes");

    // Written: the queue, the pipe to the host, the pipe of the program. Asleep in the write after that.
    let progress = || std::fs::read_to_string(case.workspace().join("progress")).ok()?.parse::<u32>().ok();
    let sleeps =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "));
    let children =
        || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).ok()?.trim().parse().ok();
    let program: u32 = eventually(children);
    eventually(|| (progress() >= Some(4) && sleeps(program)).then_some(()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("reads");
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    assert!(resident.is_some_and(|kib| kib < 8 * 1024), "{resident:?} KiB");
    assert!(progress() < Some(32), "the program was not held back");

    let (mut decoder, mut bytes, mut forwarded) = (Decoder::new(), vec![0; 1 << 16], 0);
    let mut stdout = child.stdout.take().expect("piped");
    while let Ok(count @ 1..) = stdout.read(&mut bytes) {
        decoder.push(&bytes[..count]);
        while let Some(frame) = decoder.next_frame().expect("decodes") {
            if let GuestFrame::Output { data, .. } = frame {
                forwarded += data.len();
            }
        }
    }
    assert_eq!(forwarded, 512 * 65536);
    assert!(child.wait().expect("waits").success());
}
