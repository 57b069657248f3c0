//! What turns may try against their runner: forged reports, a closed channel, floods, deafness to interrupts.

use protocol::{Exit, GuestFrame, GuestLimit, HostFrame, Language, MAX_TURN_REPORT_BYTES, Turn};

use crate::support::{has, is_running, python};

macro_rules! need_python {
    () => {
        if !has(Language::Python, module_path!()) {
            return;
        }
    };
}

/// Writes a report of one's own to the channel.
const FORGE: &str = "import os, time\ndef forge(number, report=b'{\"status\":\"completed\",\"value\":null,\"error\":null}'):\n    \
                     message = b'T' + (len(report) + 4).to_bytes(4, 'big') + number.to_bytes(4, 'big') + report\n    \
                     while message: message = message[os.write(3, message):]";

#[test]
fn a_forged_report_ends_its_own_turn_and_no_other() {
    need_python!();
    let (mut open, _case) = python(FORGE).interactive();
    // Of another turn: dropped.
    assert_eq!(open.run(1, "forge(2); forge(0); 'own'").value(), Some("'own'"));
    // Of its own: the turn has ended, and what it goes on to report is dropped.
    assert_eq!(open.run(2, "forge(2); time.sleep(0.1); 'late'").value(), None);
    assert_eq!(open.run(3, "'after'").value(), Some("'after'"));
    // Many, and as large as may be.
    let flood = format!("[forge(9, bytes({MAX_TURN_REPORT_BYTES})) for _ in range(20)]; 'still'");
    assert_eq!(open.run(4, &flood).value(), Some("'still'"));
}

#[test]
fn a_report_that_is_too_large_or_is_none_closes_the_channel_and_so_ends_the_session() {
    need_python!();
    for garbage in
        [format!("forge(1, bytes({MAX_TURN_REPORT_BYTES} + 1))"), "os.write(3, b'T\\0\\0\\0\\3abc')".to_owned()]
    {
        let (mut open, _case) = python(FORGE).interactive();
        open.begin(1, &format!("try: {garbage}\nexcept OSError: pass"));
        let run = open.finish();
        assert!(!run.frames.iter().any(|frame| matches!(frame, GuestFrame::Turned(_))), "{garbage}");
        assert_eq!(run.exit(), Exit::Code(1), "{garbage}");
        assert!(run.log.contains("garbage"), "{}", run.log);
    }
}

#[test]
fn a_turn_that_closes_its_channel_ends_the_session() {
    need_python!();
    let (mut open, _case) = python("").interactive();
    open.begin(1, "import os; os.close(3)");
    let run = open.finish();
    assert_eq!(run.exit(), Exit::Code(1));
    assert_eq!(run.stderr(), "enclave: the program closed its channel to the runner, descriptor 3\n");
}

#[test]
fn a_turn_that_closes_its_output_still_ends() {
    need_python!();
    let (mut open, _case) = python("").interactive();
    let told = open.run(1, "import os\nprint('last')\nos.close(1); os.close(2)\n1");
    assert_eq!((told.value(), told.stdout.as_str()), (Some("1"), "last\n"));
    assert_eq!(open.run(2, "2").value(), Some("2"));
}

#[test]
fn the_end_of_a_turn_does_not_wait_for_a_child_that_never_stops_writing() {
    need_python!();
    let (mut open, _case) = python("").with(|start| start.output_bytes = 1 << 40).interactive();
    let told = open.run(1, "import subprocess\nchild = subprocess.Popen(['yes'])\n'left'");
    assert_eq!(told.value(), Some("'left'"));
    assert_eq!(open.run(2, "child.poll()").value(), None);
    // A runner that is hung up on in the middle of a flood has no time for the rest of a frame.
    assert!(open.run(3, "child.kill(); child.wait()").value().is_some());
    open.hang_up();
    open.finish();
}

#[test]
fn a_turn_that_writes_too_much_is_reported() {
    need_python!();
    let (mut open, _case) = python("").with(|start| start.output_bytes = 1000).interactive();
    open.run(1, "print('x' * 500)");
    open.begin(2, "while True: print('x' * 500)");
    open.wait_for_exceeded(GuestLimit::Output);
    open.hang_up();
    assert_eq!(open.finish().exceeded(), [GuestLimit::Output]);
}

#[test]
fn a_turn_that_is_deaf_to_interrupts_goes_on_until_its_sandbox_ends() {
    need_python!();
    let mark = format!("8{:09}.25", std::process::id());
    let (mut open, _case) = python("").interactive();
    open.begin(
        1,
        &format!(
            "import signal, subprocess, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
             child = subprocess.Popen(['sleep', '{mark}'], start_new_session=True)\nprint('deaf', flush=True)\n\
             for _ in sys.stdin: pass\nimport time\nfor _ in range(20): time.sleep(0.01)\nprint('heard nothing', flush=True)\nwhile True: pass"
        ),
    );
    open.wait_for("deaf");
    for _ in 0..3 {
        open.send(&HostFrame::Interrupt { turn: 1 });
    }
    open.wait_for("heard nothing");
    open.hang_up();
    let run = open.finish();
    assert!(!run.frames.iter().any(|frame| matches!(frame, GuestFrame::Turned(_))));
    assert!(!is_running(&mark));
}

#[test]
fn turns_that_a_host_must_not_send_are_faults() {
    need_python!();
    let turn = |number| HostFrame::Turn(Turn { number, code: "while True: pass".into() });
    let (mut open, _case) = python("").interactive();
    open.send(&turn(1));
    open.send(&turn(2));
    assert!(open.finish().fault().contains("while another one runs"));
    let (mut open, _case) = python("").interactive();
    open.send(&turn(0));
    assert!(open.finish().fault().contains("does not follow"));
    let case = python("import time\nprint('in', flush=True)\ntime.sleep(1000)");
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("in");
    open.send(&turn(1));
    assert!(open.finish().fault().contains("takes none"));
}
