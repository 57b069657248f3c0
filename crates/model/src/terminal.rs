//! What a terminal may be.

use std::{collections::BTreeMap, ops::RangeInclusive};

use wire::{CreateTerminal, FieldError, TerminalSize};

use crate::session::{MAX_ARGS, MAX_TEXT_BYTES, check_env, refuse_nul};

/// Lines, and characters in a line. Larger than any screen, and small enough that a program may keep one of each.
const SIDE: RangeInclusive<u16> = 1..=1000;
const DEFAULT: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// A terminal, every value decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminalSpec {
    /// Its program and arguments; empty for a shell.
    pub command: Vec<String>,
    /// What its environment has besides that of the session's program.
    pub env: BTreeMap<String, String>,
    /// How large it is.
    pub size: TerminalSize,
}

impl TerminalSpec {
    /// Fills in defaults and refuses what is out of range, every fault at once. `faults` are those of the request's shape.
    pub fn decide(asked: CreateTerminal, mut faults: Vec<FieldError>) -> Result<Self, Vec<FieldError>> {
        let CreateTerminal { command, env, rows, cols } = asked;
        check_command(&command, &mut faults);
        check_env(&env, &mut faults);
        let size = TerminalSize { rows: rows.unwrap_or(DEFAULT.rows), cols: cols.unwrap_or(DEFAULT.cols) };
        for (field, side) in [("rows", size.rows), ("cols", size.cols)] {
            if !SIDE.contains(&side) {
                faults.push(FieldError::new(field, format!("must be from {} to {}", SIDE.start(), SIDE.end())));
            }
        }
        if faults.is_empty() { Ok(Self { command, env, size }) } else { Err(faults) }
    }
}

/// Whether a terminal can have this size.
pub fn is_size(size: TerminalSize) -> bool {
    SIDE.contains(&size.rows) && SIDE.contains(&size.cols)
}

fn check_command(command: &[String], faults: &mut Vec<FieldError>) {
    if command.len() > MAX_ARGS {
        faults.push(FieldError::new("command", format!("must be at most {MAX_ARGS}")));
    }
    if command.iter().map(String::len).sum::<usize>() > MAX_TEXT_BYTES {
        faults.push(FieldError::new("command", format!("must be at most {MAX_TEXT_BYTES} bytes together")));
    }
    if command.first().is_some_and(String::is_empty) {
        faults.push(FieldError::new("command[0]", "must not be empty"));
    }
    for (index, word) in command.iter().enumerate() {
        refuse_nul(&format!("command[{index}]"), word, faults);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_nothing_gets_a_shell_of_the_usual_size() {
        let spec = TerminalSpec::decide(CreateTerminal::default(), vec![]).unwrap();
        assert_eq!((spec.command.len(), spec.env.len(), spec.size), (0, 0, TerminalSize { rows: 24, cols: 80 }));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let asked = CreateTerminal {
            command: [String::new(), "a\0".into()].into_iter().chain(vec!["x".repeat(300); 300]).collect(),
            env: BTreeMap::from([("1A".into(), "x".into()), ("ENCLAVE_X".into(), "x".into())]),
            rows: Some(0),
            cols: Some(1001),
        };
        let faults = TerminalSpec::decide(asked, vec![FieldError::new("tty", "is not a known field")]).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        let expected =
            ["tty", "command", "command", "command[0]", "command[1]", "env.1A", "env.ENCLAVE_X", "rows", "cols"];
        assert_eq!(fields, expected);
    }
}
