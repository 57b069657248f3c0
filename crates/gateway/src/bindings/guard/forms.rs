//! The forms in which a secret is looked for, as one automaton.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use aho_corasick::{
    Anchored, BuildError,
    automaton::{Automaton, StateID},
    dfa, nfa,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

/// Shorter forms that are not the secret itself are found in innocent text; a secret that the API accepts (8 bytes) has none as short as this.
const MIN_ENCODED_BYTES: usize = 8;

/// A secret with line breaks is looked for without them down to this: an encoded break is never seen, so for such a secret
/// there is no other form, and an answer that is cut without need is better than one that leaks.
const MIN_UNBROKEN_BYTES: usize = 4;

/// All forms together may have so many bytes for the fast automaton, which takes about 512 bytes of memory for each.
const MAX_FAST_BYTES: usize = 8 * 1024;

/// All forms of some secrets. Percent, JSON and HTML escapes, and line breaks in between, are no forms of their own: the
/// scanner takes them away before it looks.
#[derive(Debug)]
pub struct Forms {
    pub(super) automaton: Machine,
    /// How many bytes of a form each state stands for. A state that is not here stands for none.
    depths: Depths,
    /// Bytes with which a form or an escape begins.
    pub(super) begins: [bool; 256],
}

type Depths = HashMap<StateID, usize, BuildHasherDefault<Spread>>;

/// States are numbers that nobody outside chooses: spreading them is enough.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Fast, or small.
#[derive(Debug)]
pub(super) enum Machine {
    Fast(dfa::DFA),
    Small(nfa::contiguous::NFA),
}

impl Forms {
    /// The forms of these secrets. Empty ones have none.
    ///
    /// Fails only when they are too large for an automaton, which a bounded secret never is.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, BuildError> {
        let mut forms = Vec::new();
        for secret in secrets {
            add(&mut forms, secret);
        }
        let all: usize = forms.iter().map(|form| form.len()).sum();
        let automaton = if all <= MAX_FAST_BYTES {
            Machine::Fast(dfa::Builder::new().prefilter(false).build(forms.iter().map(|form| form.as_slice()))?)
        } else {
            let mut builder = nfa::contiguous::Builder::new();
            Machine::Small(builder.prefilter(false).build(forms.iter().map(|form| form.as_slice()))?)
        };
        let mut begins: [bool; 256] = std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(super::escape::begins));
        for form in &forms {
            begins[usize::from(form[0])] = true;
        }
        let mut depths = Depths::default();
        match &automaton {
            Machine::Fast(machine) => measure(machine, &forms, &mut depths),
            Machine::Small(machine) => measure(machine, &forms, &mut depths),
        }
        Ok(Self { automaton, depths, begins })
    }

    pub(super) fn depth(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or(0)
    }
}

/// Where the automaton is before it has seen anything.
pub(super) fn start(machine: &impl Automaton) -> StateID {
    machine.start_state(Anchored::No).expect("both automata are built for unanchored searches")
}

fn measure(machine: &impl Automaton, forms: &[Zeroizing<Vec<u8>>], depths: &mut Depths) {
    for form in forms {
        let mut state = start(machine);
        for (before, byte) in form.iter().enumerate() {
            // After the first n bytes of a form, the automaton is where exactly these n bytes are.
            state = machine.next_state(Anchored::No, state, *byte);
            depths.insert(state, before + 1);
        }
    }
}

fn add(forms: &mut Vec<Zeroizing<Vec<u8>>>, secret: &[u8]) {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    // The scanner's other eye sees no line breaks, so a secret of several lines is also looked for without.
    let unbroken: Zeroizing<Vec<u8>> = Zeroizing::new(secret.iter().copied().filter(|byte| !is_break(byte)).collect());
    if secret.is_empty() {
        return;
    }
    if unbroken.contains(&b' ') {
        // As in a form's fields.
        forms.push(Zeroizing::new(
            unbroken.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect::<Vec<u8>>(),
        ));
    }
    let encoded = [hex::encode(secret), hex::encode_upper(secret)]
        .into_iter()
        .map(String::into_bytes)
        .chain((0..3).flat_map(|before| base64(secret, before)))
        .map(Zeroizing::new)
        .filter(|form| form.len() >= MIN_ENCODED_BYTES);
    forms.extend(encoded);
    if unbroken.len() >= MIN_UNBROKEN_BYTES {
        forms.push(unbroken);
    }
    forms.push(Zeroizing::new(secret.to_vec()));
}

/// The characters that base64 has for `secret` behind `before` other bytes (modulo 3), whatever stands around it.
fn base64(secret: &[u8], before: usize) -> [Vec<u8>; 2] {
    let mut padded = Zeroizing::new(vec![0; before]);
    padded.extend_from_slice(secret);
    // The first characters have bits of what stands before, the last may have some of what follows.
    let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| {
        let all = Zeroizing::new(engine.encode(&padded));
        all.as_bytes().get(from..to).unwrap_or_default().to_vec()
    })
}
