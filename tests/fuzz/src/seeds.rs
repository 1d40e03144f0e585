//! The corpus's beginning: valid inputs, made by the broker's own encoders and by those of other libraries.

use super::{batches, codecs, files, frames, groups, messages, records, recovery, settings};

/// The inputs with which the target of this name begins.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "frames" => frames::seeds(),
        "requests" => messages::seeds().0,
        "responses" => messages::seeds().1,
        "batches" => batches::seeds(),
        "codecs" => codecs::seeds(),
        "recovery" => recovery::seeds(),
        "files" => files::seeds(),
        "records" => records::seeds(),
        "groups" => groups::seeds(),
        _ => settings::seeds(),
    }
}
