//! `enclave terminal`, from a pipe and by hand.

use crate::{gvisor::works, place::Place, shell::Terminal};

#[test]
fn what_is_piped_in_is_typed_and_the_exit_code_is_the_programs() {
    let place = Place::new();
    let args = ["terminal", "--backend", "simulator", "--", "sh"];
    let left = place.run_with_input(&args, b"echo hello\rexit 7\r");
    assert_eq!(left.code, 7, "{}", left.stderr);
    assert!(left.stdout().contains("\r\nhello\r\n"), "{left:?}");
    let left = place.run_with_input(&args, b"echo at the end\r");
    assert_eq!(left.code, 0, "{}", left.stderr);
}

#[test]
fn what_opens_no_terminal_is_refused() {
    let place = Place::new();
    for (args, said) in [
        (&["terminal", "--backend", "simulator", "--", "no-such-program"][..], "command[0]"),
        (&["terminal", "--session", "ses_01890a5d-ac96-774b-bcce-b302099a8057"], "--session needs the server"),
        (&["terminal", "--backend", "simulator", "--idle", "1ms"], "interactive.idleTtlMs: must be at least 10"),
    ] {
        let left = place.run_with_input(args, b"");
        assert_eq!(left.code, 2, "{args:?}: {}", left.stderr);
        assert!(left.stderr.contains(said), "{args:?}: {}", left.stderr);
    }
}

#[test]
fn a_person_has_a_real_shell_and_a_way_out() {
    let place = Place::new();
    if !works(&place, "a_person_has_a_real_shell_and_a_way_out") {
        return;
    }
    let mut terminal = Terminal::open(&place, &["terminal", "--backend", "gvisor", "--env", "PS1=> ", "--", "sh"]);
    terminal.expect("> ");
    terminal.types("sh -c 'echo be\'\'gun; exec sleep 600'\r");
    terminal.expect("begun");
    terminal.types("\x03");
    terminal.expect("> ");
    terminal.types("\recho ali''ve; exit 5\r");
    terminal.expect("alive");
    assert_eq!(terminal.wait(), 5);
    let mut terminal = Terminal::open(&place, &["terminal", "--backend", "gvisor", "--env", "PS1=> ", "--", "sh"]);
    terminal.expect("> ");
    terminal.types("~.");
    terminal.expect("left trm_");
    assert_eq!(terminal.wait(), 4);
}
