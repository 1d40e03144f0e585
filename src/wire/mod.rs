//! The wire: how Kafka's messages are laid out in bytes, and nothing about what they mean.
//!
//! ```text
//! frame     INT32 length, then that many bytes                                      frame.rs
//! request   key INT16, version INT16, correlation id INT32, client id, [tags], body  header.rs
//! response  correlation id INT32, [tags], body                                       header.rs
//! body      a message: the fields of its table that exist in the version             table.rs
//! field     INT8..INT64, STRING, ARRAY, RECORDS, ...                                 field.rs, primitives.rs
//! ```
//!
//! Invariants:
//! 1. No input makes a reader panic; what does not fit is [`Malformed`].
//! 2. Nothing is allocated for a count or a length before that many bytes are known to remain (CVE-2022-34917).
//! 3. Record bytes are never copied out of a request: they stay a [`FrameSlice`] of the one buffer that was read.
//! 4. Writing cannot fail: what a version cannot express is left out of it.

pub mod field;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod header;
pub mod metadata_records;
#[cfg(test)]
mod oracle;
pub mod primitives;
pub mod table;

#[cfg(test)]
pub(crate) use golden::hex;

pub use frame::{FileSlice, Frame, FrameSlice, Records};
pub use header::{RequestHeader, read_request, read_response, write_request, write_response};
pub use primitives::{Hole, Malformed, Reader, Uuid, Writer};
pub use table::Message;
pub(crate) use table::messages;
