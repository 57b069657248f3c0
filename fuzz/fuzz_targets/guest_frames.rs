//! Bytes from a runner that may have been taken over: decoding and order checking never panic, and what decodes
//! encodes to bytes that decode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Decoder, GuestFrame, GuestOrder, MAX_FRAME_BYTES, encode};

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let mut decoder = Decoder::new();
    let mut order = GuestOrder::new();
    order.assign("ses_1");
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next_frame::<GuestFrame>() {
                Ok(Some(frame)) => {
                    let again = encode(&frame).expect("what was decoded can be encoded");
                    assert!(again.len() <= MAX_FRAME_BYTES + 4);
                    let mut second = Decoder::new();
                    second.push(&again);
                    assert_eq!(second.next_frame::<GuestFrame>(), Ok(Some(frame.clone())));
                    if order.check(&frame).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
