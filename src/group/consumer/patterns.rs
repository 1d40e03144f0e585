//! Subscriptions by regular expression: what a pattern stands for is looked up here, not by each client.
//!
//! A pattern must match a topic's whole name; every topic counts, the internal ones too, as in Kafka. The syntax is
//! that of the crate `regex-lite`, which is RE2's (Kafka's) but for `\Q..\E`, `\C` and classes of Unicode (`\pN`,
//! `[[:word:]]` and the other ASCII ones are there): topic names are ASCII.
//!
//! A hostile pattern takes a minute for the names of 10,000 topics, so the control thread looks up none: it answers a
//! heartbeat that needs it with a [`LookUp`], and the connection's own thread comes again with what it [`Found`].

use super::{ConsumerGroup, Fault};
use crate::api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use crate::error::ErrorCode;
use crate::group::Env;
use regex_lite::{Regex, RegexBuilder};
use std::collections::BTreeMap;

/// The longest pattern.
const PATTERN_BYTES_MAX: usize = 4096;

/// What a pattern may take when compiled: room for the longest one of plain characters.
const PROGRAM_BYTES_MAX: usize = 256 * 1024;

/// How long a group's patterns are left alone after a look-up, whatever becomes of the topics (Kafka's).
pub const LOOK_UP_INTERVAL_MIN_MS: i64 = 10_000;

/// What is to be looked up before a heartbeat can be taken up; nothing has come of it so far.
#[derive(Clone, Debug, PartialEq)]
pub struct LookUp {
    request: ConsumerGroupHeartbeatRequest,
    patterns: Vec<String>,
    names: Vec<String>,
    changes: u64,
}

/// The topics that patterns stand for, or why one is none (INVALID_REGULAR_EXPRESSION).
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By pattern.
    pub topics: BTreeMap<String, Result<Vec<String>, Fault>>,
    /// The catalog's count of changes when these were all topics.
    pub changes: u64,
}

impl LookUp {
    /// Looks the patterns up, which may take long; gives the heartbeat back, to be asked again with what is found.
    pub fn run(self) -> (ConsumerGroupHeartbeatRequest, Found) {
        let names = &self.names;
        let look_up = |pattern: String| {
            let regex = compile(&pattern).map_err(|why| {
                let what =
                    format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression");
                let code = ErrorCode::InvalidRegularExpression;
                (code, format!("{what}: {why}."))
            });
            let matching = |regex: Regex| {
                let matching = names.iter().filter(|name| regex.is_match(name));
                matching.cloned().collect()
            };
            let found = regex.map(matching);
            (pattern, found)
        };
        let found = Found {
            topics: self.patterns.into_iter().map(look_up).collect(),
            changes: self.changes,
        };
        (self.request, found)
    }
}

impl ConsumerGroup {
    /// What a heartbeat that comes with `found` still needs: the topics of its own pattern, if that is new here, and
    /// now and then those of all patterns, for which one member goes and the others need not wait.
    pub(super) fn missing_look_up(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        found: &Found,
        env: &Env<'_>,
    ) -> Option<LookUp> {
        let own = request.subscribed_topic_regex.as_deref();
        let is_new = |pattern: &&str| {
            let known = self.patterns.contains_key(*pattern) || found.topics.contains_key(*pattern);
            !pattern.is_empty() && !known
        };
        let mut patterns: Vec<String> = own.filter(is_new).map(str::to_owned).into_iter().collect();
        let interval_ms = match self.looked_up_at == env.catalog.changes {
            true => i64::from(env.config.group_consumer_regex_refresh_interval_ms),
            false => LOOK_UP_INTERVAL_MIN_MS,
        };
        let due = |then_ms| env.now_ms > then_ms + interval_ms;
        if found.topics.is_empty() && self.looked_up_ms.is_none_or(due) {
            patterns.extend(self.patterns.keys().map(|pattern| pattern.to_string()));
            self.looked_up_ms = Some(env.now_ms);
        }
        (!patterns.is_empty()).then(|| LookUp {
            request: request.clone(),
            patterns,
            names: env.catalog.topics.keys().cloned().collect(),
            changes: env.catalog.changes,
        })
    }
}

/// Compiles a pattern that a whole name must match; the error is why it is none.
pub fn compile(pattern: &str) -> Result<Regex, String> {
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
