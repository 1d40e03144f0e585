//! What stands around a message's body: the frame's length, and the request and response headers.
//!
//! ```text
//! request  v1 | length INT32 | api key INT16 | version INT16 | correlation id INT32 | client id STRING | body
//!          v2 | the same, with tagged fields between client id and body
//! response v0 | length INT32 | correlation id INT32 | body
//!          v1 | the same, with tagged fields between correlation id and body
//! ```
//! A flexible version of a message goes with the newer header of the two. ApiVersions' response alone always has
//! header v0, since the client that asks does not know yet what the broker speaks (KIP-511); for the same reason
//! the client id is a STRING of the old form in every version.

use super::primitives::{Reader, Result, Writer};
use super::table::Message;

/// The key of the one API whose response header never changes.
const API_VERSIONS_KEY: i16 = 18;

/// A request's header up to its client id: readable whatever the API and version, known or not.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: i16,
    /// The version of the body, and of the response.
    pub api_version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads the header; the reader is then where [`read_request`] goes on.
    pub fn read(reader: &mut Reader<'_>) -> Result<RequestHeader> {
        Ok(RequestHeader {
            api_key: reader.i16()?,
            api_version: reader.i16()?,
            correlation_id: reader.i32()?,
            client_id: reader.string(false)?,
        })
    }
}

/// Reads a request's body, and what of its header the body's version decides.
///
/// Bytes after the body are ignored, as Kafka does.
pub fn read_request<M: Message>(reader: &mut Reader<'_>, version: i16) -> Result<M> {
    if version >= M::FLEXIBLE {
        reader.tags(|_, _| Ok(false))?;
    }
    M::read(reader, version)
}

/// A whole request frame, its length in front: what a client sends.
pub fn write_request<M: Message>(header: &RequestHeader, message: &M) -> Writer {
    framed(|writer| {
        writer.put(&header.api_key.to_be_bytes());
        writer.put(&header.api_version.to_be_bytes());
        writer.put(&header.correlation_id.to_be_bytes());
        writer.string(header.client_id.as_deref(), false);
        if header.api_version >= M::FLEXIBLE {
            writer.unsigned_varint(0);
        }
        message.write(writer, header.api_version);
    })
}

/// A whole response frame, its length in front; the length counts what goes into the holes. It is wrong where it
/// cannot be right, beyond 2 GiB: such a frame must not be sent.
pub fn write_response<M: Message>(correlation_id: i32, version: i16, message: &M) -> Writer {
    framed(|writer| {
        writer.put(&correlation_id.to_be_bytes());
        if has_response_tags::<M>(version) {
            writer.unsigned_varint(0);
        }
        message.write(writer, version);
    })
}

/// Reads a response frame, without its length: the correlation id and the body. What a client does.
pub fn read_response<M: Message>(reader: &mut Reader<'_>, version: i16) -> Result<(i32, M)> {
    let correlation_id = reader.i32()?;
    if has_response_tags::<M>(version) {
        reader.tags(|_, _| Ok(false))?;
    }
    Ok((correlation_id, M::read(reader, version)?))
}

fn has_response_tags<M: Message>(version: i16) -> bool {
    version >= M::FLEXIBLE && M::KEY != API_VERSIONS_KEY
}

fn framed(write: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::new();
    writer.put(&[0; 4]);
    write(&mut writer);
    let length = writer.total_bytes() - 4;
    writer.bytes[..4].copy_from_slice(&(length as i32).to_be_bytes());
    writer
}
