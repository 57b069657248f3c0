use std::time::Duration;

use super::{super::program::Reach, *};

const MIB: u64 = 1024 * 1024;

fn python(source: &str) -> Program {
    read(source, Language::Python, false)
}

fn node(source: &str) -> Program {
    read(source, Language::Node, false)
}

fn straight(instructions: &[Instruction]) -> Program {
    Program { instructions: instructions.to_vec(), again: None }
}

fn out(text: &str) -> Instruction {
    Instruction::Write(Stream::Stdout, text.into())
}

#[test]
fn an_honest_program_says_what_it_would_say() {
    let expected = straight(&[
        out("hello 7\n"),
        Instruction::Write(Stream::Stderr, b"careful".to_vec()),
        Instruction::Sleep(Duration::from_millis(500)),
        Instruction::Result(b"{\"a\":[1,true,null]}".to_vec()),
        Instruction::Exit(3),
    ]);
    let source = "import sys, time\n\nname = 'x'\nprint('hello', 7, flush=True)  # greets\nsys.stderr.write(\"careful\")\n\
        time.sleep(0.5)\nenclave.result({\n    'a': [1, True, None],\n})\nsys.exit(3)\nprint('never')\n";
    assert_eq!(python(source), expected);
    let source = "'use strict';\nconst fs = require('fs');\nconsole.log('hello', 7); // greets\n\
        process.stderr.write(`careful`)\nawait new Promise(r => setTimeout(r, 500));\nenclave.result({ a: [1, true, null] });\n\
        process.exit(3);\nnever();";
    assert_eq!(node(source), expected);
}

#[test]
fn endless_loops_run_into_the_limit_that_they_use_up() {
    let spin = Instruction::Cpu(None);
    let cases = [
        ("while True: pass", "while(true){}", spin.clone()),
        ("while 1:\n    x = 1", "for (;;);", spin),
        (
            "import os\nwhile True:\n    os.fork()",
            "for(;;) child_process.spawn('sleep', ['9'])",
            Instruction::Fork(u32::MAX),
        ),
        (
            "while True:\n  try:\n    threading.Thread(target=f).start()\n  except Exception: pass",
            "while (true) new Worker('x', { eval: true })",
            Instruction::Threads(u32::MAX),
        ),
        (
            "a = []\nwhile True: a.append(' ' * 9)",
            "const a = []; while (1) { a.push(Buffer.alloc(9)) }",
            Instruction::Memory(u64::MAX),
        ),
        ("s = 'x'\nwhile True: s += s", "let s = 'x';\nwhile (true) s += s", Instruction::Memory(u64::MAX)),
        (
            "with open('f', 'wb') as f:\n  while True:\n    f.write(block)",
            "for (;;) { fs.appendFileSync('f', block); }",
            Instruction::Disk(u64::MAX),
        ),
        ("while True: print('y')", "while (true) { console.log('y') }", Instruction::Flood(Stream::Stdout, u64::MAX)),
    ];
    for (in_python, in_node, expected) in cases {
        assert_eq!(python(in_python), straight(std::slice::from_ref(&expected)), "{in_python}");
        assert_eq!(node(in_node), straight(&[expected]), "{in_node}");
    }
}

#[test]
fn a_loop_that_takes_its_time_goes_round() {
    let expected =
        Program { instructions: vec![out("tick\n"), Instruction::Sleep(Duration::from_secs(1))], again: Some(0) };
    assert_eq!(python("while True:\n    print('tick')\n    time.sleep(1)"), expected);
    let expected =
        Program { instructions: vec![Instruction::Sleep(Duration::from_secs(1)), out("tick\n")], again: Some(0) };
    assert_eq!(node("setInterval(() => { console.log('tick') }, 1000)"), expected);
    // A sleep of nothing would keep everybody else from running.
    assert_eq!(python("while True: time.sleep(0)"), straight(&[Instruction::Cpu(None)]));
}

#[test]
fn counted_loops_are_rolled_out_or_summed_up() {
    assert_eq!(python("for _ in range(2):\n    print('x')"), straight(&[out("x\n"), out("x\n")]));
    assert_eq!(node("for (let i = 1; i <= 2; i++) console.log('x')"), straight(&[out("x\n"), out("x\n")]));
    assert_eq!(
        python("for i in range(10**9): print('x')"),
        straight(&[Instruction::Flood(Stream::Stdout, 2_000_000_000)])
    );
    assert_eq!(python("for i in range(20_000): os.fork()"), straight(&[Instruction::Fork(20_000)]));
    assert_eq!(python("for i in range(0): os.fork()"), straight(&[]));
    let nested = "for a in range(100000):\n  for b in range(100000):\n    for c in range(100000):\n      for d in range(100000): print(1)";
    assert_eq!(python(nested), straight(&[Instruction::Flood(Stream::Stdout, u64::MAX)]));
}

#[test]
fn large_values_and_files_have_their_size() {
    let sized =
        "a = bytearray(64 * 1024**2)\nb = b'x' * (1 << 20)\nc.append('ab' * 10)\nopen('f', 'w').write('y' * 100)";
    let expected =
        [Instruction::Memory(64 * MIB), Instruction::Memory(MIB), Instruction::Memory(20), Instruction::Disk(100)];
    assert_eq!(python(sized), straight(&expected));
    let sized = "const a = Buffer.alloc(64 * 1024 ** 2);\nlet b = 'x'.repeat(1 << 20)\nc.push('ab'.repeat(10))\nfs.writeFileSync('f', 'y'.repeat(100))";
    assert_eq!(node(sized), straight(&expected));
}

#[test]
fn exceptions_and_signals_end_it() {
    let raised = |text: &str| straight(&[Instruction::Raise { text: text.into(), line: 1 }]);
    assert_eq!(python("raise ValueError('no; really')"), raised("ValueError: no; really"));
    assert_eq!(python("raise KeyboardInterrupt"), raised("KeyboardInterrupt"));
    assert_eq!(node("throw new TypeError(`no`)"), raised("TypeError: no"));
    assert_eq!(python("os.kill(os.getpid(), signal.SIGKILL)"), straight(&[Instruction::Signal(9)]));
    assert_eq!(node("process.kill(process.pid, 'SIGTERM')"), straight(&[Instruction::Signal(15)]));
    assert_eq!(node("process.abort()"), straight(&[Instruction::Signal(6)]));
}

#[test]
fn lines_that_are_not_understood_are_counted_and_said() {
    let notice = |count: &str| {
        let text = format!("simulator: this is a model; {count} not understood\n");
        Instruction::Write(Stream::Stderr, text.into_bytes())
    };
    let source =
        "import math\nprint(math.pi)\nprint('fine')\ndef f(x):\n    print('inside')\n    return x\nf(1); f(2)\n";
    assert_eq!(python(source), straight(&[notice("5 lines were"), out("fine\n")]));
    assert_eq!(node("compute()"), straight(&[notice("1 line was")]));
    // What cannot be told to end is not taken for endless.
    assert_eq!(python("while True:\n    if done(): break"), straight(&[notice("2 lines were")]));
    assert_eq!(python("while x < 3: pass"), straight(&[notice("1 line was")]));
    let spinning = straight(&[notice("1 line was"), Instruction::Cpu(None)]);
    assert_eq!(python("while True:\n    compute()"), spinning);
    assert_eq!(python(""), straight(&[]));
}

#[test]
fn loops_cannot_multiply_the_size_of_a_program() {
    let source = format!("for i in range(9000): print('{}')\n", "x".repeat(1000)).repeat(1000);
    let written =
        |instruction: &Instruction| if let Instruction::Write(_, data) = instruction { data.len() } else { 0 };
    let program = python(&source);
    assert!(program.instructions.iter().map(written).sum::<usize>() < 4 << 20);
    assert!(program.instructions.len() < 12_000, "{}", program.instructions.len());
    let nested = "for i in range(9):\n  for j in range(9000): print('x')\n".repeat(20_000);
    assert!(python(&nested).instructions.len() < 60_000);
}

#[test]
fn hostile_sources_are_read_in_bounded_time_and_depth() {
    let deep = format!("{}x{}", "setTimeout(() => ".repeat(20_000), ", 1)".repeat(20_000));
    for source in [deep, "print(".repeat(100_000), "'\"`".repeat(100_000), "enclave.result([[".repeat(50_000)] {
        assert!(!python(&source).instructions.is_empty());
        assert!(!node(&source).instructions.is_empty());
    }
}

#[test]
fn what_reaches_out_is_recognised_where_there_is_a_way_out() {
    let need = |reach, to: &str| straight(&[Instruction::Need { reach, to: to.into(), line: 1 }]);
    for (language, source, expected) in [
        (Language::Python, "s = socket.create_connection((\"a.test\", 80), timeout=3)", need(Reach::Tcp, "a.test:80")),
        (Language::Python, "urllib.request.urlopen('http://a.test/x')", need(Reach::Http, "http://a.test/x")),
        (Language::Node, "const r = await fetch('https://a.test/')", need(Reach::Http, "https://a.test/")),
    ] {
        assert_eq!(read(source, language, true), expected, "{source}");
        assert_ne!(read(source, language, false), expected, "{source}");
    }
}
