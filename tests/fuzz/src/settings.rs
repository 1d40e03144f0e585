//! Settings, from the file, the command line, and clients: taken or refused in one line, and what is taken is in force.
//!
//! Input: `u8 kind | text`; but for the file, `name=value` lines.

use super::{Bound, Taken, files, memory, mutate};
use ottla::config::{Config, Dynamic, GroupConfig, Overrides, TopicConfig, check_dynamic};
use std::fs;
use std::sync::OnceLock;

/// A broker's table is made anew for each configuration, and a line of the file is kept in several forms on its way.
pub const BOUND: Bound = Bound {
    times: 60,
    bytes: 256 << 10,
};

fn defaults() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(Config::default)
}

fn one_line(error: &ottla::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}

fn taken(config: &Config) {
    let _ = (
        config.notices(),
        config.durability_notice(),
        config.advertised("PLAINTEXT"),
    );
    TopicConfig::new(config, &Overrides::new()).expect("what all topics have was checked");
}

fn check(kind: u8, text: &str) {
    let pairs = || {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let overrides: Overrides = pairs().collect();
    let refused = match kind {
        0 => files::in_directory(|directory| {
            let path = directory.join("server.properties");
            fs::write(&path, text).expect("written");
            Config::load(Some(&path), &[]).map(|config| taken(&config))
        }),
        1 => Config::load(None, &pairs().collect::<Vec<_>>()).map(|config| taken(&config)),
        2 => TopicConfig::new(defaults(), &overrides).map(|_| ()),
        3 => GroupConfig::new(defaults(), &overrides).map(|_| ()),
        _ => check_dynamic(&overrides).and_then(|()| {
            let dynamic = Dynamic {
                cluster: overrides,
                ..Dynamic::default()
            };
            let (config, faults) = defaults().with_what_fits(dynamic.clone());
            taken(&config);
            let with_all = defaults().with(dynamic);
            assert!(with_all.is_err() || faults.is_empty(), "{faults:?}");
            with_all.map(|config| taken(&config))
        }),
    };
    if let Err(error) = refused {
        one_line(&error);
    }
}

pub fn run(mut input: &[u8]) -> Taken {
    let kind = mutate::u8(&mut input).unwrap_or_default();
    let text = String::from_utf8_lossy(input);
    let _ = (defaults(), files::in_directory(|_| ()));
    let ((), most) = memory::measured(|| check(kind % 5, &text));
    Taken {
        most,
        from_budgets: 0,
    }
}

/// Files as people have them, and single settings of every type.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "\0# Kafka's own\nbroker.id=0\nlisteners=PLAINTEXT://:9092,CONTROLLER://[::1]:9093\n\
         advertised.listeners=PLAINTEXT://host:9092\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs=\\u002ftmp\n\
         log.retention.hours = 168\nlog.cleanup.policy: compact,\\\n   delete\n",
        "\u{1}listeners=127.0.0.1:0\nlog.retention.ms=-1\nmax.connections=5\nlog.roll.hours=1\n",
        "\u{2}cleanup.policy=compact,delete\nretention.ms=5\nmin.compaction.lag.ms=1\nflush.messages=1\n",
        "\u{3}consumer.session.timeout.ms=45000\nconsumer.heartbeat.interval.ms=5000\n",
        "\u{4}log.retention.ms=5\nmax.connections=7\nlog.flush.interval.messages=10\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
