//! Looks for the forms of secrets in a stream of bytes, however it is cut into pieces.
//!
//! It has two eyes. One sees the bytes as they are. The other sees them without percent, JSON and HTML escapes, and
//! without line breaks inside a form (base64 is often wrapped). Most of the time both see the same, and only one has to look.
//!
//! What it has to answer besides: up to which byte nothing can be the beginning of a form any more ([`Scanner::cleared`]).
//! Only those bytes may leave.

use std::{collections::VecDeque, sync::Arc};

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    escape::{self, Escape},
    forms::{Forms, Machine, start},
};

/// A form of a secret was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scanner {
    forms: Arc<Forms>,
    /// Bytes seen.
    seen: u64,
    /// The first eye.
    plain: StateID,
    /// The second eye, while it sees something else.
    other: Option<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    state: StateID,
    /// Where each byte came from that `state` stands for.
    from: VecDeque<u64>,
    /// What may be an escape, and where it began.
    pending: Vec<u8>,
    pending_from: u64,
    /// The line break that was just seen.
    breaking: Break,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    None,
    Return,
    Whole,
}

impl Scanner {
    /// One that has seen nothing, and counts from `at`.
    pub fn new(forms: Arc<Forms>, at: u64) -> Self {
        let plain = match &forms.automaton {
            Machine::Fast(machine) => start(machine),
            Machine::Small(machine) => start(machine),
        };
        Self { forms, seen: at, plain, other: None }
    }

    /// Whether these bytes alone hold a form.
    pub fn finds(forms: &Arc<Forms>, bytes: &[u8]) -> bool {
        let mut scanner = Self::new(forms.clone(), 0);
        scanner.scan(bytes).is_err() || scanner.finish().is_err()
    }

    /// Looks at what comes next.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let forms = self.forms.clone();
        match &forms.automaton {
            Machine::Fast(machine) => self.run(machine, &forms, bytes),
            Machine::Small(machine) => self.run(machine, &forms, bytes),
        }
    }

    /// Nothing comes any more: what may have been an escape is none.
    pub fn finish(&mut self) -> Result<(), Found> {
        let forms = self.forms.clone();
        if let Some(mut other) = self.other.take() {
            match &forms.automaton {
                Machine::Fast(machine) => other.give_up(machine, &forms)?,
                Machine::Small(machine) => other.give_up(machine, &forms)?,
            }
        }
        Ok(())
    }

    /// No byte before this one can be part of a form that is still to be found.
    pub fn cleared(&self) -> u64 {
        let plain = self.seen - self.forms.depth(self.plain) as u64;
        match &self.other {
            None => plain,
            Some(other) => plain.min(other.cleared(self.seen)),
        }
    }

    fn run<A: Automaton>(&mut self, machine: &A, forms: &Forms, bytes: &[u8]) -> Result<(), Found> {
        let begin = start(machine);
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            if self.other.is_none() && self.plain == begin {
                // The long stretches in which nothing is about to begin.
                let dull = |byte: &u8| !forms.begins[usize::from(*byte)] && !escape::begins(*byte);
                let skipped = rest.iter().position(|byte| !dull(byte)).unwrap_or(rest.len());
                at += skipped;
                self.seen += skipped as u64;
                if skipped > 0 {
                    continue;
                }
            }
            let byte = rest[0];
            at += 1;
            let before = self.plain;
            self.plain = machine.next_state(Anchored::No, before, byte);
            if machine.is_special(self.plain) && machine.is_match(self.plain) {
                return Err(Found);
            }
            self.look_otherwise(machine, forms, before, byte)?;
            self.seen += 1;
            self.agree(forms);
        }
        Ok(())
    }

    /// The second eye sees a byte, if it has anything to see.
    fn look_otherwise<A: Automaton>(
        &mut self,
        machine: &A,
        forms: &Forms,
        before: StateID,
        byte: u8,
    ) -> Result<(), Found> {
        let other = match &mut self.other {
            Some(other) => other,
            None if !escape::begins(byte) => return Ok(()),
            // A line break that interrupts nothing is the same to both.
            None if escape::is_break(byte) && before == start(machine) && self.plain == before => return Ok(()),
            none => {
                let depth = forms.depth(before) as u64;
                none.insert(Other {
                    state: before,
                    from: (self.seen - depth..self.seen).collect(),
                    pending: Vec::new(),
                    pending_from: self.seen,
                    breaking: Break::None,
                })
            }
        };
        other.see(machine, forms, byte, self.seen)
    }

    /// Closes the second eye when it sees what the first sees.
    fn agree(&mut self, forms: &Forms) {
        let Some(other) = &self.other else { return };
        let same = other.pending.is_empty()
            && other.state == self.plain
            && other.from.front().is_none_or(|from| self.seen - from == forms.depth(self.plain) as u64);
        if same {
            self.other = None;
        }
    }
}

impl Other {
    fn cleared(&self, seen: u64) -> u64 {
        let pending = if self.pending.is_empty() { seen } else { self.pending_from };
        self.from.front().map_or(pending, |from| pending.min(*from))
    }

    fn see<A: Automaton>(&mut self, machine: &A, forms: &Forms, byte: u8, at: u64) -> Result<(), Found> {
        if self.pending.is_empty() {
            self.pending_from = at;
        }
        self.pending.push(byte);
        self.settle(machine, forms)
    }

    /// Takes from what is pending all that is decided.
    fn settle<A: Automaton>(&mut self, machine: &A, forms: &Forms) -> Result<(), Found> {
        while !self.pending.is_empty() {
            match escape::read(&self.pending) {
                Escape::Open => return Ok(()),
                Escape::Stands(character) => {
                    let from = self.pending_from;
                    self.pending.clear();
                    let mut buffer = [0; 4];
                    for byte in character.encode_utf8(&mut buffer).bytes() {
                        self.step(machine, forms, byte, from)?;
                    }
                }
                Escape::Byte(byte) => {
                    let from = self.pending_from;
                    self.pending.clear();
                    self.step(machine, forms, byte, from)?;
                }
                Escape::None => self.literal(machine, forms)?,
            }
        }
        Ok(())
    }

    /// The first pending byte stands for itself.
    fn literal<A: Automaton>(&mut self, machine: &A, forms: &Forms) -> Result<(), Found> {
        let (byte, from) = (self.pending.remove(0), self.pending_from);
        self.pending_from += 1;
        self.step(machine, forms, byte, from)
    }

    fn give_up<A: Automaton>(&mut self, machine: &A, forms: &Forms) -> Result<(), Found> {
        while !self.pending.is_empty() {
            self.literal(machine, forms)?;
            self.settle(machine, forms)?;
        }
        Ok(())
    }

    fn step<A: Automaton>(&mut self, machine: &A, forms: &Forms, byte: u8, from: u64) -> Result<(), Found> {
        if escape::is_break(byte) {
            self.breaking = match (self.breaking, byte) {
                (Break::None, b'\r') => Break::Return,
                (Break::None, _) | (Break::Return, b'\n') => Break::Whole,
                // Wrapped text has no empty lines; and with one, an event of a stream ends and must not be held up.
                (Break::Return | Break::Whole, _) => {
                    self.state = start(machine);
                    self.from.clear();
                    Break::Whole
                }
            };
            return Ok(());
        }
        self.breaking = Break::None;
        self.state = machine.next_state(Anchored::No, self.state, byte);
        if machine.is_special(self.state) && machine.is_match(self.state) {
            return Err(Found);
        }
        self.from.push_back(from);
        let excess = self.from.len() - forms.depth(self.state);
        self.from.drain(..excess);
        Ok(())
    }
}
