//! Settings of consumer groups: what the broker's must be among each other.

use super::Config;
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
    ascending(&[
        (
            "group.min.session.timeout.ms",
            config.group_min_session_timeout_ms,
        ),
        (
            "group.max.session.timeout.ms",
            config.group_max_session_timeout_ms,
        ),
    ])?;
    ascending(&[
        (
            "group.consumer.min.session.timeout.ms",
            config.group_consumer_min_session_timeout_ms,
        ),
        session,
        (
            "group.consumer.max.session.timeout.ms",
            config.group_consumer_max_session_timeout_ms,
        ),
    ])?;
    ascending(&[
        (
            "group.consumer.min.heartbeat.interval.ms",
            config.group_consumer_min_heartbeat_interval_ms,
        ),
        heartbeat,
        (
            "group.consumer.max.heartbeat.interval.ms",
            config.group_consumer_max_heartbeat_interval_ms,
        ),
    ])?;
    less(heartbeat, session)?;
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

type Named<'a> = (&'a str, i32);

/// Each at least the one before it.
fn ascending(settings: &[Named<'_>]) -> Result<()> {
    let broken = settings.windows(2).find(|pair| pair[0].1 > pair[1].1);
    broken.map_or(Ok(()), |pair| {
        let (low, high) = (pair[0].0, pair[1].0);
        Err(Error::new(format!(
            "{high} must be greater than or equal to {low}"
        )))
    })
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
}
