//! Settings of consumer groups: what the broker's must be among each other, and what a group may have of its own.

use super::table::GROUP;
use super::{Config, Overrides, shortened};
use crate::error::{Error, Result};

/// Checks the broker's settings of groups against each other, as Kafka's `GroupCoordinatorConfig` does.
pub(super) fn check(config: &Config) -> Result<()> {
    let session = (
        "group.consumer.session.timeout.ms",
        config.group_consumer_session_timeout_ms,
    );
    let heartbeat = (
        "group.consumer.heartbeat.interval.ms",
        config.group_consumer_heartbeat_interval_ms,
    );
    at_least(
        (
            "group.max.session.timeout.ms",
            config.group_max_session_timeout_ms,
        ),
        (
            "group.min.session.timeout.ms",
            config.group_min_session_timeout_ms,
        ),
    )?;
    check_bounds(config, session, heartbeat)?;
    let protocols = &config.group_coordinator_rebalance_protocols;
    if !protocols.iter().any(|protocol| protocol == "classic") {
        return Err(Error::new(
            "group.coordinator.rebalance.protocols: classic must be one of them",
        ));
    }
    match config.group_consumer_assignors.is_empty() {
        true => Err(Error::new("group.consumer.assignors: name at least one")),
        false => Ok(()),
    }
}

/// The bounds of the broker's own defaults and of what a group may have.
fn check_bounds(config: &Config, session: Named<'_>, heartbeat: Named<'_>) -> Result<()> {
    within(
        (
            "group.consumer.min.heartbeat.interval.ms",
            config.group_consumer_min_heartbeat_interval_ms,
        ),
        heartbeat,
        (
            "group.consumer.max.heartbeat.interval.ms",
            config.group_consumer_max_heartbeat_interval_ms,
        ),
    )?;
    within(
        (
            "group.consumer.min.session.timeout.ms",
            config.group_consumer_min_session_timeout_ms,
        ),
        session,
        (
            "group.consumer.max.session.timeout.ms",
            config.group_consumer_max_session_timeout_ms,
        ),
    )?;
    less(heartbeat, session)
}

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";

/// Beginnings of names that Kafka knows of groups of other kinds.
const REFUSED: &[(&str, &str)] = &[
    ("share.", "share groups are not served"),
    ("streams.", "streams groups are not served"),
];

/// A group's settings in force: its own over the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval_ms: i32,
}

impl GroupConfig {
    /// The settings of a group whose own ones are `overrides`, as Kafka's `GroupConfig` checks them.
    ///
    /// The error is the message for INVALID_CONFIG.
    pub fn new(broker: &Config, overrides: &Overrides) -> Result<GroupConfig> {
        for (name, value) in overrides {
            if let Some((_, reason)) = REFUSED.iter().find(|(start, _)| name.starts_with(start)) {
                let name = shortened(name);
                return Err(Error::new(format!("{name} is refused: {reason}")));
            }
            let Some(row) = GROUP.iter().find(|row| row.name == name) else {
                let name = shortened(name);
                return Err(Error::new(format!("Unknown group config name: {name}")));
            };
            row.check_for_client(value)?;
        }
        let group = GroupConfig::read(broker, overrides);
        let session = (SESSION, group.consumer_session_timeout_ms);
        let heartbeat = (HEARTBEAT, group.consumer_heartbeat_interval_ms);
        check_bounds(broker, session, heartbeat)?;
        Ok(group)
    }

    /// What cannot be read, which a check let pass once, is the broker's.
    fn read(broker: &Config, overrides: &Overrides) -> GroupConfig {
        let own = |name| overrides.get(name)?.trim().parse().ok();
        GroupConfig {
            consumer_session_timeout_ms: own(SESSION)
                .unwrap_or(broker.group_consumer_session_timeout_ms),
            consumer_heartbeat_interval_ms: own(HEARTBEAT)
                .unwrap_or(broker.group_consumer_heartbeat_interval_ms),
        }
    }
}

impl Config {
    /// The settings in force of the group `id`.
    pub fn group(&self, id: &str) -> GroupConfig {
        let none = Overrides::new();
        GroupConfig::read(self, self.dynamic.groups.get(id).unwrap_or(&none))
    }

    /// The groups that have settings of their own.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.dynamic.groups.keys().map(String::as_str)
    }
}

type Named<'a> = (&'a str, i32);

fn within(low: Named<'_>, setting: Named<'_>, high: Named<'_>) -> Result<()> {
    at_least(setting, low)?;
    match setting.1 <= high.1 {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} must be less than or equal to {}",
            setting.0, high.0
        ))),
    }
}

fn at_least(high: Named<'_>, low: Named<'_>) -> Result<()> {
    match high.1 >= low.1 {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} must be greater than or equal to {}",
            high.0, low.0
        ))),
    }
}

fn less(low: Named<'_>, high: Named<'_>) -> Result<()> {
    match low.1 < high.1 {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} must be greater than {}",
            high.0, low.0
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_groups_may_ask_for_must_leave_something() {
        let cases = [
            ("group.min.session.timeout.ms", "1800001"),
            ("group.consumer.session.timeout.ms", "44999"),
            ("group.consumer.max.session.timeout.ms", "44999"),
            ("group.consumer.heartbeat.interval.ms", "15001"),
            ("group.coordinator.rebalance.protocols", "consumer"),
            ("group.consumer.assignors", ""),
        ];
        for (name, value) in cases {
            let refusal = Config::load(None, &[(name.into(), value.into())]).unwrap_err();
            assert!(refusal.to_string().contains(name), "{refusal}");
        }
    }

    #[test]
    fn a_groups_own_settings_stay_within_the_brokers_bounds() {
        let broker = Config::default();
        let group = |name: &str, value: &str| {
            GroupConfig::new(&broker, &Overrides::from([(name.into(), value.into())]))
        };
        assert_eq!(
            group(SESSION, "50000").unwrap(),
            GroupConfig {
                consumer_session_timeout_ms: 50_000,
                consumer_heartbeat_interval_ms: 5000,
            }
        );
        for (name, value, why) in [
            (
                SESSION,
                "44999",
                "greater than or equal to group.consumer.min.session",
            ),
            (
                SESSION,
                "60001",
                "less than or equal to group.consumer.max.session",
            ),
            (
                HEARTBEAT,
                "4999",
                "greater than or equal to group.consumer.min.heart",
            ),
            (
                HEARTBEAT,
                "15001",
                "less than or equal to group.consumer.max.heart",
            ),
            (HEARTBEAT, "often", "Invalid value often for configuration"),
            ("session", "1", "Unknown group config name: session"),
            ("share.session.timeout.ms", "45000", "not served"),
        ] {
            let refusal = group(name, value).unwrap_err().to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
    }
}
