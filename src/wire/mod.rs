//! The wire: how Kafka lays out its primitives in bytes, and the one buffer that a request is received into.

pub mod frame;
pub mod primitives;

pub use frame::{FileSlice, Frame, FrameSlice, Records};
pub use primitives::{Hole, Malformed, Reader, Uuid, Writer};
