use protocol::{Exit, GuestFrame, GuestLimit, HostFrame, Language};

use crate::support::{eventually, has, is_running, python};

macro_rules! need_python {
    () => {
        if !has(Language::Python, module_path!()) {
            return;
        }
    };
}

/// A word for a command line that no other test and no earlier run has used.
fn mark(name: &str) -> String {
    format!("9{:09}.{}", std::process::id(), name.len())
}

#[test]
fn a_child_that_outlives_its_parent_and_holds_the_pipes_dies_with_it() {
    need_python!();
    let mark = mark("child");
    let run = python(&format!("import subprocess\nsubprocess.Popen(['sleep', '{mark}'])\nprint('left')")).run();
    assert_eq!(run.clean(), "left\n");
    assert!(!is_running(&mark));
}

#[test]
fn a_daemon_that_ignores_every_signal_dies_too() {
    need_python!();
    let mark = mark("a daemon");
    let code = format!(
        "import os, signal, time\nr, w = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        \
         [signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 17, 19)]\n        os.write(w, b'x')\n        \
         os.execvp('sleep', ['sleep', '{mark}'])\n    os._exit(0)\nos.read(r, 1)\nprint('daemonised')"
    );
    let run = python(&code).run();
    assert_eq!(run.clean(), "daemonised\n");
    eventually(|| (!is_running(&mark)).then_some(()));
}

#[test]
fn a_flood_of_orphans_is_reaped_while_the_program_runs() {
    need_python!();
    let code = "import os, time\nfor i in range(400):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)\n    os.wait()\n\
        def zombies():\n    found = 0\n    for pid in filter(str.isdigit, os.listdir('/proc')):\n        \
        try: stat = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()\n        except OSError: continue\n        \
        found += stat[0] == 'Z' and stat[1] == str(os.getppid())\n    return found\n\
        deadline = time.time() + 30\nwhile zombies() and time.time() < deadline: pass\nprint('zombies', zombies())";
    assert_eq!(python(code).run().clean(), "zombies 0\n");
}

#[test]
fn garbage_on_the_control_channel_costs_the_program_its_result_and_nothing_else() {
    need_python!();
    for garbage in ["b'garbage'", r"b'R\xff\xff\xff\xff' + b'x' * 100000", r"b'S\0\0\0\0'", r"b'\0' * 5"] {
        let code = format!(
            "import os, time\nos.write(3, {garbage})\ntry:\n    while True: enclave.result('late')\nexcept RuntimeError as e: print(e)"
        );
        let run = python(&code).run();
        assert_eq!(run.stdout(), "the program closed its channel to the runner, descriptor 3\n", "{garbage}");
        assert_eq!((run.exit(), run.result()), (Exit::Code(0), None), "{garbage}");
        assert!(run.log.contains("garbage"), "{}", run.log);
    }
}

#[test]
fn a_closed_control_channel_is_an_error_of_the_program_and_never_a_write_into_its_files() {
    need_python!();
    let code = "import os\nos.close(3)\nf = open('own', 'w')\nassert f.fileno() == 3\n\
                try: enclave.result(1)\nexcept RuntimeError as error: print(error)\nprint(os.path.getsize('own'))";
    let run = python(code).run();
    assert_eq!(run.clean(), "the program closed its channel to the runner, descriptor 3\n0\n");
    assert_eq!(run.result(), None);
}

#[test]
fn of_a_flood_of_results_the_last_one_counts_and_few_are_sent() {
    need_python!();
    let run = python("for i in range(5000): enclave.result(i)").run();
    run.clean();
    assert_eq!(run.result().as_deref(), Some("4999"));
    let sent = run.frames.iter().filter(|frame| matches!(frame, GuestFrame::Result { .. })).count();
    assert!((1..=600).contains(&sent), "{sent}");
}

#[test]
fn frames_on_stdout_are_output() {
    need_python!();
    let forged = protocol::encode(&GuestFrame::Result { json: b"\"forged\"".to_vec() }).expect("encodes");
    let exited =
        protocol::encode(&GuestFrame::Exited { session_id: "ses_0197".into(), exit: Exit::Code(0) }).expect("encodes");
    let code = format!("import os\nos.write(1, bytes({forged:?})); os.write(2, bytes({exited:?})); os._exit(3)");
    let run = python(&code).run();
    assert_eq!((run.exit(), run.result()), (Exit::Code(3), None));
    assert_eq!(run.stdout().as_bytes(), forged);
}

#[test]
fn the_runner_is_deaf_to_signals_and_closed_to_inspection() {
    need_python!();
    let code = r"
import ctypes, os, signal
runner = os.getppid()
for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
    os.kill(runner, number)
libc = ctypes.CDLL(None, use_errno=True)
print('ptrace', libc.ptrace(16, runner, 0, 0))
for name in ('mem', 'environ', 'fd', 'fd/1', 'exe', 'maps'):
    path = f'/proc/{runner}/{name}'
    try:
        os.listdir(path) if name == 'fd' else os.readlink(path) if name == 'exe' else open(path, 'rb').read(1)
        print(name, 'open')
    except PermissionError:
        pass
print(sorted(os.listdir('/proc/self/fd')), signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM) == 0)
print({line.split()[0]: line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapInh', 'NoNew'))})
";
    let run = python(code).run();
    let lines = run.clean();
    let none = "0000000000000000";
    let expected = format!(
        "ptrace -1\n['0', '1', '2', '3', '4'] set() True\n\
         {{'CapInh:': '{none}', 'CapPrm:': '{none}', 'CapEff:': '{none}', 'NoNewPrivs:': '1'}}\n"
    );
    assert_eq!(lines, expected);
}

#[test]
fn too_many_processes_or_threads_are_reported_once() {
    need_python!();
    for start in
        ["os.fork() or (signal.pause(), os._exit(0))", "threading.Thread(target=gate.wait, daemon=True).start()"]
    {
        let code = format!(
            "import os, signal, threading\ngate = threading.Event()\nfor _ in range(12): {start}\nprint('up')\ngate.wait()"
        );
        let case = python(&code).with(|start| start.pids = 10);
        let mut open = case.open();
        open.send(&HostFrame::Start(Box::new(case.start.clone())));
        open.wait_for_exceeded(GuestLimit::Pids);
        open.hang_up();
        assert_eq!(open.finish().exceeded(), [GuestLimit::Pids], "{start}");
    }
    let within =
        python("import os, time\n[os.fork() or (time.sleep(9), os._exit(0)) for _ in range(8)]\ntime.sleep(0.5)");
    assert_eq!(within.with(|start| start.pids = 10).run().exceeded(), []);
}
