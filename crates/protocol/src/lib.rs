//! Host <-> runner frames and their codec; [`files`] has the calls on files among them, [`terminals`] what is said of
//! terminals, [`egress`] what runner and gateway say to one another.
//!
//! The host side of a session (the engine's driver, and each backend's handshake) and the runner inside the
//! sandbox speak these frames over one duplex pipe: stdio of `runsc run`, a vsock stream, an attach stream, an
//! in-memory pipe for the simulator. One frame is a 4-byte big-endian length followed by that many bytes of
//! postcard. Bytes from the runner are hostile: [`Decoder`] bounds and types them, [`GuestOrder`] checks that they
//! come in an order that an honest runner could have sent. Nothing in a frame is trusted for identity, path or
//! policy.
//!
//! This crate goes into the static runner binary, so it depends on nothing of ours and on no runtime.

mod codec;
pub mod egress;
pub mod files;
mod frame;
mod order;
pub mod path;
pub mod terminals;

pub use codec::{DecodeError, Decoder, EncodeError, MAX_FRAME_BYTES, encode};
pub use frame::{
    DISK_TOLERANCE_BYTES, Exit, GuestFrame, GuestLimit, HostFrame, Language, MAX_FAULT_BYTES, MAX_RESULT_BYTES,
    MAX_TURN_REPORT_BYTES, NotPut, OUTPUT_CHUNK_BYTES, PUT_CHUNK_BYTES, Put, PutKind, Start, Stream, Turn, Turned,
    VERSION,
};
pub use order::{GuestOrder, OrderError};
