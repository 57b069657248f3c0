//! Looks for the forms of secrets in a stream of bytes, however it is cut into pieces.
//!
//! It sees the bytes as they are. Beside that it follows other readings of them: without percent, JSON and HTML escapes,
//! and without line breaks inside a form (base64 is often wrapped). A reading begins where something looks like an escape,
//! and ends where it has come to the same as the bytes themselves, which is soon.
//!
//! What it has to answer besides: up to which byte nothing can be the beginning of a form any more ([`Scanner::cleared`]).
//! Only those bytes may leave.

use std::sync::Arc;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    escape,
    forms::{Forms, Machine, start},
    reading::Reading,
};

/// Readings that are followed at once. Two or three come up in what honest encoders write.
const MAX_READINGS: usize = 8;

/// A form of a secret was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scanner {
    forms: Arc<Forms>,
    /// Bytes seen.
    seen: u64,
    /// Where the bytes themselves have led.
    plain: StateID,
    /// Where other readings have led.
    readings: Vec<Reading>,
}

impl Scanner {
    /// One that has seen nothing, and counts from `at`.
    pub fn new(forms: Arc<Forms>, at: u64) -> Self {
        let plain = match &forms.automaton {
            Machine::Fast(machine) => start(machine),
            Machine::Small(machine) => start(machine),
        };
        Self { forms, seen: at, plain, readings: Vec::new() }
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
        let mut more = Vec::new();
        for mut reading in self.readings.drain(..) {
            match &forms.automaton {
                Machine::Fast(machine) => reading.give_up(machine, &forms, &mut more)?,
                Machine::Small(machine) => reading.give_up(machine, &forms, &mut more)?,
            }
        }
        Ok(())
    }

    /// No byte before this one can be part of a form that is still to be found.
    pub fn cleared(&self) -> u64 {
        let plain = self.seen - self.forms.depth(self.plain) as u64;
        self.readings.iter().map(|reading| reading.cleared(self.seen)).min().map_or(plain, |other| plain.min(other))
    }

    fn run<A: Automaton>(&mut self, machine: &A, forms: &Forms, bytes: &[u8]) -> Result<(), Found> {
        let begin = start(machine);
        let mut rest = bytes;
        loop {
            if self.readings.is_empty() {
                // Almost everything is read here.
                let (mut state, mut read) = (self.plain, 0);
                loop {
                    if state == begin {
                        read += until_any(&forms.begins, &rest[read..]);
                    }
                    let Some(byte) = rest.get(read) else { break };
                    let begins = forms.begins[usize::from(*byte)];
                    if begins && escape::begins(*byte) && !(state == begin && escape::is_break(*byte)) {
                        break;
                    }
                    state = machine.next_state(Anchored::No, state, *byte);
                    if machine.is_special(state) && machine.is_match(state) {
                        return Err(Found);
                    }
                    read += 1;
                }
                (self.plain, self.seen, rest) = (state, self.seen + read as u64, &rest[read..]);
            }
            let Some((byte, after)) = rest.split_first() else { return Ok(()) };
            let before = self.plain;
            self.plain = machine.next_state(Anchored::No, before, *byte);
            if machine.is_special(self.plain) && machine.is_match(self.plain) {
                return Err(Found);
            }
            self.read_otherwise(machine, forms, before, *byte)?;
            self.seen += 1;
            rest = after;
        }
    }

    /// Continues other readings with a byte, and begins one if the byte may be no part of what it stands in.
    fn read_otherwise<A: Automaton>(
        &mut self,
        machine: &A,
        forms: &Forms,
        before: StateID,
        byte: u8,
    ) -> Result<(), Found> {
        let mut more = Vec::new();
        for reading in &mut self.readings {
            reading.see(machine, forms, byte, self.seen, &mut more)?;
        }
        // A line break that interrupts nothing is the same in all readings.
        if escape::begins(byte) && !(escape::is_break(byte) && before == start(machine)) {
            let mut reading = Reading::at(before, forms.depth(before), self.seen);
            reading.see(machine, forms, byte, self.seen, &mut more)?;
            self.readings.push(reading);
        }
        self.readings.append(&mut more);
        self.forget(forms);
        Ok(())
    }

    /// Forgets readings that have come to the same as another. There are few then; if not, those that have seen least of
    /// a form go first.
    fn forget(&mut self, forms: &Forms) {
        let (plain, depth) = (self.plain, forms.depth(self.plain));
        let mut at = 0;
        while let Some(reading) = self.readings.get(at) {
            let known = |other: &Reading| other.is_same(reading);
            if reading.is_plain(plain, depth, self.seen + 1) || self.readings[..at].iter().any(known) {
                self.readings.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if self.readings.len() > MAX_READINGS {
            self.readings.sort_by_key(|reading| std::cmp::Reverse(reading.from.len()));
            self.readings.truncate(MAX_READINGS);
        }
    }
}

/// How many bytes stand before the first that is one of these: a few at a time, for almost all of them are none.
fn until_any(these: &[bool; 256], bytes: &[u8]) -> usize {
    const AT_ONCE: usize = 16;
    let is_one = |byte: &u8| these[usize::from(*byte)];
    let none = |few: &&[u8]| !few.iter().fold(false, |any, byte| any | is_one(byte));
    let skipped = bytes.chunks_exact(AT_ONCE).take_while(none).count() * AT_ONCE;
    skipped + bytes[skipped..].iter().position(is_one).unwrap_or(bytes.len() - skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_skipped_up_to_the_first_that_counts() {
        let mut these = [false; 256];
        these[usize::from(b'x')] = true;
        for before in 0..70 {
            let mut bytes = vec![b'-'; before];
            assert_eq!(until_any(&these, &bytes), before);
            bytes.extend_from_slice(b"x--x");
            assert_eq!(until_any(&these, &bytes), before);
        }
    }
}
