//! One way to read a stream that may be escaped: some of what looks like escapes is undone, and line breaks are not seen.

use std::collections::VecDeque;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    escape::{self, Escape, MAX_ESCAPE_BYTES},
    forms::{Forms, start},
    scanner::Found,
};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    state: StateID,
    /// Where each byte came from that `state` stands for.
    pub(super) from: VecDeque<u64>,
    /// What may be an escape, how much of it there is, and where it began.
    pending: [u8; MAX_ESCAPE_BYTES],
    waiting: usize,
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

impl Reading {
    /// One that has come, by the bytes themselves, to a state of this depth just before `at`.
    pub(super) fn at(state: StateID, depth: usize, at: u64) -> Self {
        Self {
            state,
            from: (at - depth as u64..at).collect(),
            pending: [0; MAX_ESCAPE_BYTES],
            waiting: 0,
            pending_from: at,
            breaking: Break::None,
        }
    }

    /// Whether it has come to the same as the bytes themselves, which are in this state of this depth just before `at`.
    pub(super) fn is_plain(&self, state: StateID, depth: usize, at: u64) -> bool {
        let from = (depth > 0).then(|| at - depth as u64);
        self.state == state && self.waiting == 0 && self.breaking == Break::None && self.from.front().copied() == from
    }

    /// Whether both will find the same, and hold back the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let open = |reading: &Self| (reading.waiting > 0).then_some(reading.pending_from);
        self.state == other.state
            && self.from.front() == other.from.front()
            && self.pending[..self.waiting] == other.pending[..other.waiting]
            && open(self) == open(other)
            && self.breaking == other.breaking
    }

    pub(super) fn cleared(&self, seen: u64) -> u64 {
        let pending = if self.waiting == 0 { seen } else { self.pending_from };
        self.from.front().map_or(pending, |from| pending.min(*from))
    }

    /// Sees the byte at `at`. Readings that differ from here on go to `more`.
    pub(super) fn see<A: Automaton>(
        &mut self,
        machine: &A,
        forms: &Forms,
        byte: u8,
        at: u64,
        more: &mut Vec<Self>,
    ) -> Result<(), Found> {
        if self.waiting == 0 {
            self.pending_from = at;
        }
        self.pending[self.waiting] = byte;
        self.waiting += 1;
        self.settle(machine, forms, more)
    }

    /// Nothing comes any more: what is pending stands for itself.
    pub(super) fn give_up<A: Automaton>(
        &mut self,
        machine: &A,
        forms: &Forms,
        more: &mut Vec<Self>,
    ) -> Result<(), Found> {
        while self.waiting > 0 {
            self.literal(machine, forms)?;
            self.settle(machine, forms, more)?;
        }
        Ok(())
    }

    /// Takes from what is pending all that is decided.
    fn settle<A: Automaton>(&mut self, machine: &A, forms: &Forms, more: &mut Vec<Self>) -> Result<(), Found> {
        while self.waiting > 0 {
            let character = match escape::read(&self.pending[..self.waiting]) {
                Escape::Open => return Ok(()),
                Escape::None => {
                    self.literal(machine, forms)?;
                    continue;
                }
                Escape::Stands(character) => character,
                Escape::Byte(byte) => {
                    self.fork(machine, forms, more)?;
                    let from = self.pending_from;
                    self.waiting = 0;
                    self.step(machine, forms, byte, from)?;
                    continue;
                }
            };
            self.fork(machine, forms, more)?;
            let from = self.pending_from;
            self.waiting = 0;
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                self.step(machine, forms, byte, from)?;
            }
        }
        Ok(())
    }

    /// What is an escape here may be none in another reading, and its end the beginning of another.
    fn fork<A: Automaton>(&self, machine: &A, forms: &Forms, more: &mut Vec<Self>) -> Result<(), Found> {
        let state = machine.next_state(Anchored::No, self.state, self.pending[0]);
        if machine.is_special(state) && machine.is_match(state) {
            return Err(Found);
        }
        // Mostly this leads nowhere, and there is little to copy.
        let depth = forms.depth(state);
        let mut from: VecDeque<u64> =
            self.from.range((self.from.len() + 1 - depth).min(self.from.len())..).copied().collect();
        if depth > 0 {
            from.push_back(self.pending_from);
        }
        let mut other = Self {
            state,
            from,
            pending: [0; MAX_ESCAPE_BYTES],
            waiting: self.waiting - 1,
            pending_from: self.pending_from + 1,
            breaking: Break::None,
        };
        other.pending[..other.waiting].copy_from_slice(&self.pending[1..self.waiting]);
        other.settle(machine, forms, more)?;
        more.push(other);
        Ok(())
    }

    /// The first pending byte stands for itself.
    fn literal<A: Automaton>(&mut self, machine: &A, forms: &Forms) -> Result<(), Found> {
        let (byte, from) = (self.pending[0], self.pending_from);
        self.pending.copy_within(1..self.waiting, 0);
        self.waiting -= 1;
        self.pending_from += 1;
        self.step(machine, forms, byte, from)
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
            if self.from.is_empty() {
                self.breaking = Break::None;
            }
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
