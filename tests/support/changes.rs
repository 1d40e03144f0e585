//! The log of changes that `slow_sync.c` writes, which describes its format.

/// One change.
pub struct Record<'a> {
    /// What kind of change.
    pub op: u32,
    pub offset: u64,
    pub path: &'a str,
    pub data: &'a [u8],
}

/// The ends of all recorded changes, the places for a cut; with what each changed, if that was a name.
pub fn boundaries(changes: &[u8]) -> Vec<(u64, Option<&str>)> {
    let mut rest = changes;
    let next = || {
        let record = Record::next(&mut rest)?;
        let name = matches!(record.op, 1 | 7..=9).then_some(record.path);
        Some(((changes.len() - rest.len()) as u64, name))
    };
    std::iter::from_fn(next).collect()
}

impl<'a> Record<'a> {
    /// Takes the first record; none when the log ends, perhaps within one that a kill cut short.
    pub fn next(rest: &mut &'a [u8]) -> Option<Record<'a>> {
        let number = |at: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(rest.get(at..at + len)?);
            Some(u64::from_le_bytes(bytes))
        };
        let (op, path_len) = (number(0, 4)? as u32, number(4, 4)? as usize);
        let (offset, data_len) = (number(8, 8)?, number(16, 8)? as usize);
        let path = rest.get(24..24 + path_len)?;
        let data = rest.get(24 + path_len..24 + path_len + data_len)?;
        *rest = &rest[24 + path_len + data_len..];
        Some(Record {
            op,
            offset,
            path: std::str::from_utf8(path).expect("a path in UTF-8"),
            data,
        })
    }
}
