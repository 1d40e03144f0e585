//! The syntax of `server.properties`: Java's properties format, as far as it says something about settings.
//!
//! ```text
//! file    = { natural line }                     lines end with \n, \r\n or \r
//! line    = blank | ("#" | "!") comment | entry  a line that ends with an odd number of \ goes on in the next,
//!                                                whose leading blanks do not count
//! entry   = name [ separator value ]             separator: blanks, or one "=" or ":" with blanks around it
//! escapes = \t \n \r \f \\ \uHHHH, and \x = x    in names and values
//! ```
//! The file is read as UTF-8 (Java reads Latin-1 and escapes the rest, which is understood here too). Blanks at
//! a value's end are dropped, as Kafka drops them.

use crate::error::{Error, Result};

/// One entry and the line on which it begins, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's first line.
    pub line: usize,
    /// The setting's name, unescaped.
    pub name: String,
    /// The setting's value, unescaped and trimmed; empty if the line has a name alone.
    pub value: String,
}

/// Reads the entries of a properties file, in their order.
///
/// The error says the line and what is wrong with it: the one thing that can be is a `\u` escape.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = (1..).zip(text.split('\n'));
    let mut found = Vec::new();
    while let Some((line, start)) = lines.next() {
        let start = start.trim_start_matches(BLANK);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while goes_on(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start_matches(BLANK)),
                None => break,
            }
        }
        let (name, value) = split(&logical);
        let unescape =
            |part| unescape(part).map_err(|what| Error::new(format!("line {line}: {what}")));
        let value = unescape(value)?.trim_end().to_owned();
        found.push(Entry {
            line,
            name: unescape(name)?,
            value,
        });
    }
    Ok(found)
}

const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

fn goes_on(line: &str) -> bool {
    line.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// Splits at the first separator that no backslash escapes.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (BLANK.contains(&c) || c == '=' || c == ':');
        escaped = c == '\\' && !escaped;
        ends
    });
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANK);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, rest.trim_start_matches(BLANK))
}

fn unescape(text: &str) -> std::result::Result<String, String> {
    // Java's escapes are UTF-16 units: a character beyond the first 65,536 is written as two of them.
    let mut units = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().unwrap_or('\\'),
            _ => {
                units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
                continue;
            }
        };
        match c {
            't' => units.push(u16::from(b'\t')),
            'n' => units.push(u16::from(b'\n')),
            'r' => units.push(u16::from(b'\r')),
            'f' => units.push(0xc),
            'u' => {
                let digits: String = chars.by_ref().take(4).collect();
                let valid = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| valid);
                units.push(
                    unit.ok_or_else(|| format!("\\u{digits} is not \\u and four hex digits"))?,
                );
            }
            _ => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
        }
    }
    String::from_utf16(&units).map_err(|_| "half of a \\u surrogate pair".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text).unwrap();
        entries
            .into_iter()
            .map(|e| (e.line, e.name, e.value))
            .collect()
    }

    #[track_caller]
    fn one(text: &str, name: &str, value: &str) {
        assert_eq!(
            pairs(text),
            [(1, name.to_owned(), value.to_owned())],
            "{text:?}"
        );
    }

    #[test]
    fn separators_and_blanks() {
        one("a=b", "a", "b");
        one("a:b", "a", "b");
        one("a b", "a", "b");
        one(" \ta \t= \t b c \t", "a", "b c");
        one("a", "a", "");
        one("a=", "a", "");
        one("a = = b", "a", "= b");
        one(
            "listeners=PLAINTEXT://:9092",
            "listeners",
            "PLAINTEXT://:9092",
        );
    }

    #[test]
    fn comments_blank_lines_and_line_ends() {
        let text = "\u{feff}# c\n\n   ! c \\\r\na=1\r\n  \rb=2 # part of the value\n";
        let expected = [(4, "a", "1"), (6, "b", "2 # part of the value")];
        assert_eq!(
            pairs(text),
            expected.map(|(l, n, v)| (l, n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn continuations() {
        one("a=b,\\\n   c,\\\r\n\td", "a", "b,c,d");
        one("a=b\\\\", "a", "b\\");
        one("a=b\\", "a", "b");
        let two = pairs("a=b\\\\\nc=\\\nd");
        assert_eq!(two.len(), 2);
        assert_eq!(two[1], (2, "c".to_owned(), "d".to_owned()));
    }

    #[test]
    fn escapes() {
        one(r"a\ b\=c\:d=e", "a b=c:d", "e");
        one(r"a=C:\\x\ty\q", "a", "C:\\x\tyq");
        one(r"a=\u00e9\ud83d\ude00", "a", "é😀");
        for bad in [r"a=\u00g0", r"a=\u12", r"a=\ud83d", r"\u+123=1"] {
            let message = parse(bad).unwrap_err().to_string();
            assert!(message.starts_with("line 1: "), "{message}");
        }
    }
}
