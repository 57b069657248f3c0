//! What always holds, for a fuzzer to try to break.

use std::sync::Arc;

use bytes::Bytes;

use super::{Coding, Cut, Forms, Guard};

/// Takes a secret, a coding, sizes of pieces and a body from these bytes, and guards the body.
///
/// Panics if a byte leaves that did not come, or comes and does not leave; or if the secret, as it is, leaves.
pub fn prove(data: &[u8]) {
    let [length, coding, size, rest @ ..] = data else { return };
    let (secret, body) = rest.split_at(usize::from(length % 64).min(rest.len()));
    let coding = match coding % 4 {
        0 => None,
        1 => Some(Coding::Gzip),
        2 => Some(Coding::Deflate),
        _ => Some(Coding::Brotli),
    };
    let forms = Arc::new(Forms::of([secret]).expect("a short secret has a small automaton"));
    let mut guard = Guard::new(&forms, coding).expect("one decoder is not too many");
    let mut left = Vec::new();
    let mut go = || -> Result<(), Cut> {
        for chunk in body.chunks(usize::from(*size).max(1)) {
            guard.push(Bytes::copy_from_slice(chunk))?;
            while let Some(bytes) = guard.pop() {
                left.extend_from_slice(&bytes);
            }
        }
        guard.end()?;
        while let Some(bytes) = guard.pop() {
            left.extend_from_slice(&bytes);
        }
        Ok(())
    };
    let ended = go();
    assert!(body.starts_with(&left), "something else left than came");
    assert!(ended.is_err() || left.len() == body.len(), "something stayed behind");
    let leaked = !secret.is_empty() && left.windows(secret.len()).any(|window| window == secret);
    assert!(!leaked, "the secret left");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_for_anything(data in proptest::collection::vec(prop_oneof![any::<u8>(), 0x20u8..0x28], 0..300)) {
            super::prove(&data);
        }
    }
}
