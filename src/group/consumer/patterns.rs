//! Subscriptions by regular expression: what a pattern stands for is looked up here, not by each client.
//!
//! A pattern must match a topic's whole name; every topic counts, the internal ones too, as in Kafka. The syntax is
//! that of the crate `regex-lite`, which is RE2's (Kafka's) but for `\Q..\E`, `\C` and classes of Unicode (`\pN`,
//! `[[:word:]]` and the other ASCII ones are there): topic names are ASCII.
//!
//! A pattern costs time on the control thread: at most [`PROGRAM_BYTES_MAX`] steps for each byte of each name. So its
//! length is bounded, what it compiles to is too, and names are looked at again only when topics have changed.

use super::Fault;
use crate::error::ErrorCode;
use crate::group::Env;
use crate::group::records::ConsumerGroupRegularExpressionValue;
use regex_lite::{Regex, RegexBuilder};

/// The longest pattern.
const PATTERN_BYTES_MAX: usize = 4096;

/// What a pattern may take when compiled: room for the longest one of plain characters.
const PROGRAM_BYTES_MAX: usize = 256 * 1024;

/// How long a group's patterns are left alone after a look-up, whatever becomes of the topics (Kafka's).
pub const LOOK_UP_INTERVAL_MIN_MS: i64 = 10_000;

/// The topics that `pattern` stands for now.
///
/// # Errors
/// INVALID_REGULAR_EXPRESSION: it is none, or too large.
pub fn look_up(pattern: &str, env: &Env<'_>) -> Result<ConsumerGroupRegularExpressionValue, Fault> {
    let regex = compile(pattern).map_err(|why| {
        let what = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression");
        (
            ErrorCode::InvalidRegularExpression,
            format!("{what}: {why}."),
        )
    })?;
    let names = env.catalog.topics.keys();
    Ok(ConsumerGroupRegularExpressionValue {
        topics: names.filter(|name| regex.is_match(name)).cloned().collect(),
        version: env.catalog.changes as i64,
        timestamp: env.time_ms,
    })
}

fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |pattern: &str| {
        let mut builder = RegexBuilder::new(pattern);
        let built = builder.size_limit(PROGRAM_BYTES_MAX).build();
        built.map_err(|error| error.to_string())
    };
    // Alone first: `a)(b` would be well-formed only inside the other's parentheses.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        compile(pattern).unwrap().is_match(name)
    }

    #[test]
    fn a_pattern_is_matched_against_the_whole_name() {
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a", "ab"));
        assert!(!matches("b", "ab"));
        assert!(matches("(?i)AB-[0-9]+", "ab-17"));
        assert!(matches("^ab$", "ab"));
        assert!(matches("__.*", "__consumer_offsets"));
        assert!(matches("[[:alpha:]]\\d", "a1"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["(", "a)(b", "[a", "*", "\\", "a{2000}{2000}", "\\pN"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
