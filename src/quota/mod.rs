//! Client quotas (KIP-13, KIP-546): how many bytes a second clients may send and fetch, and what is done about more.
//!
//! Owns: the published quotas, and a meter for each client, or group of clients, that one holds for. A client that is
//! over its quota is answered at once, with the time for which its connection is then not read (KIP-219). Invariants:
//! without a byte rate set, a request costs one relaxed load; a client-id, of which a stranger can make up any number,
//! costs no meter beyond [`METERS_MAX`].
//!
//! There is no authentication, so every client's user is `ANONYMOUS`. The quota that holds is the first of:
//! ```text
//! <user, client-id> <user, any client-id> <user> <any user, client-id> <any user, any client-id> <any user>
//! <client-id> <any client-id>
//! ```
//! One on a user alone is shared by all of its clients. A connection rate holds for each address that it names, or for
//! each that no other one names. Request percentage and controller mutation rate are stored and described, and not
//! enforced; nor is a connection rate of a host by its name.

mod meter;

pub use meter::{Meter, Window};

use crate::config::Config;
use crate::lock::{Mutex, Rank};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The kinds of entities (Kafka's `ClientQuotaEntity`).
pub const USER: &str = "user";
/// See [`USER`].
pub const CLIENT_ID: &str = "client-id";
/// See [`USER`].
pub const IP: &str = "ip";

/// Bytes a second.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes a second.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Percent of one thread's time.
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Partitions made or removed a second.
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
/// Connections a second.
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// The keys that nothing enforces.
const NOT_ENFORCED: [&str; 2] = [REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE];

/// Who every client is.
const ANONYMOUS: &str = "ANONYMOUS";

/// The meters that are kept, of about 400 bytes each.
pub const METERS_MAX: usize = 10_000;

/// Whom quotas are for: one kind, or user and client-id, each with a name or, for all others, without one.
pub type Entity = BTreeMap<String, Option<String>>;

/// All quotas: of each entity the values, by key.
pub type Table = BTreeMap<Entity, BTreeMap<String, f64>>;

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Requests that bring records.
    Produce,
    /// Answers that carry records.
    Fetch,
}

/// Who shares a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Share {
    User,
    UserAndClient,
    Client,
}

/// The quotas of one flow, for the one user that there is.
#[derive(Default)]
struct Limits {
    /// Of the user by its name, of any user, and without regard to the user.
    levels: [Level; 3],
}

#[derive(Default)]
struct Level {
    by_client: HashMap<String, f64>,
    any_client: Option<f64>,
    whole: Option<f64>,
}

impl Limits {
    fn of(table: &Table, key: &str) -> Limits {
        let mut limits = Limits::default();
        for (entity, values) in table {
            let Some(limit) = values.get(key).copied() else {
                continue;
            };
            let level = match entity.get(USER) {
                Some(Some(user)) if user == ANONYMOUS => &mut limits.levels[0],
                Some(Some(_)) => continue,
                Some(None) => &mut limits.levels[1],
                None => &mut limits.levels[2],
            };
            match entity.get(CLIENT_ID) {
                Some(Some(client)) => drop(level.by_client.insert(client.clone(), limit)),
                Some(None) => level.any_client = Some(limit),
                None => level.whole = Some(limit),
            }
        }
        limits
    }

    fn is_empty(&self) -> bool {
        let none = |level: &Level| {
            level.by_client.is_empty() && level.any_client.is_none() && level.whole.is_none()
        };
        self.levels.iter().all(none)
    }

    /// The limit that holds. A client without a client-id has none of those that go by it.
    fn resolve(&self, client_id: &str) -> Option<(f64, Share)> {
        for (level, share) in
            self.levels
                .iter()
                .zip([Share::UserAndClient, Share::UserAndClient, Share::Client])
        {
            let by_client = level.by_client.get(client_id).copied();
            let of_client = by_client.or(level.any_client);
            if let Some(limit) = of_client.filter(|_| !client_id.is_empty()) {
                return Some((limit, share));
            }
            if let Some(limit) = level.whole {
                return Some((limit, Share::User));
            }
        }
        None
    }
}

/// The connection rates, by address.
#[derive(Default)]
struct Rates {
    by_ip: HashMap<IpAddr, f64>,
    any_ip: Option<f64>,
}

impl Rates {
    fn of(table: &Table) -> Rates {
        let mut rates = Rates::default();
        for (entity, values) in table {
            let Some(rate) = values.get(CONNECTION_CREATION_RATE).copied() else {
                continue;
            };
            match entity.get(IP) {
                Some(Some(name)) => match name.parse::<IpAddr>() {
                    Ok(ip) => drop(rates.by_ip.insert(ip.to_canonical(), rate)),
                    Err(_) => log::warn!(
                        "quotas: {CONNECTION_CREATION_RATE} of {name} is stored and described, but not enforced: it is no address"
                    ),
                },
                Some(None) => rates.any_ip = Some(rate),
                None => {}
            }
        }
        rates
    }

    fn is_empty(&self) -> bool {
        self.by_ip.is_empty() && self.any_ip.is_none()
    }
}

/// What a meter counts, and whose, by a hash: a client-id may be 32 KiB long.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum MeterKey {
    Bytes(Flow, Share, u64),
    Connections(u64),
}

struct Metered {
    table: Arc<Table>,
    produce: Limits,
    fetch: Limits,
    connect: Rates,
    meters: HashMap<MeterKey, Meter>,
    /// When those that count nothing any more were last looked for.
    swept_ms: i64,
}

/// The quotas in force, and the meters.
pub struct Quotas {
    window: Window,
    began: Instant,
    hasher: RandomState,
    /// Whether any byte rate is set.
    limited: AtomicBool,
    /// Guards the quotas and the meters.
    metered: Mutex<Metered>,
}

impl Quotas {
    /// With the quotas that were recorded.
    pub fn new(config: &Config, table: Table) -> Quotas {
        let metered = Metered {
            table: Arc::default(),
            produce: Limits::default(),
            fetch: Limits::default(),
            connect: Rates::default(),
            meters: HashMap::new(),
            swept_ms: 0,
        };
        let quotas = Quotas {
            window: Window {
                samples: config.quota_samples.into(),
                sample_ms: i64::from(config.quota_sample_s) * 1000,
            },
            began: Instant::now(),
            hasher: RandomState::new(),
            limited: AtomicBool::new(false),
            metered: Mutex::new(Rank::Quotas, metered),
        };
        quotas.publish(table);
        quotas
    }

    /// Puts a changed table in force; what was counted still counts.
    pub fn publish(&self, table: Table) {
        for key in NOT_ENFORCED {
            if table.values().any(|values| values.contains_key(key)) {
                log::warn!("quotas: {key} is stored and described, but not enforced");
            }
        }
        let produce = Limits::of(&table, PRODUCER_BYTE_RATE);
        let fetch = Limits::of(&table, CONSUMER_BYTE_RATE);
        let connect = Rates::of(&table);
        let limited = !produce.is_empty() || !fetch.is_empty() || !connect.is_empty();
        let mut metered = self.metered.lock();
        if !limited {
            metered.meters = HashMap::new();
        }
        (metered.produce, metered.fetch, metered.connect) = (produce, fetch, connect);
        metered.table = Arc::new(table);
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// All quotas, for a description.
    pub fn table(&self) -> Arc<Table> {
        self.metered.lock().table.clone()
    }

    /// The client's limit, in bytes a second, if it has one.
    pub fn limit(&self, flow: Flow, client_id: &str) -> Option<f64> {
        if !self.limited.load(Ordering::Relaxed) {
            return None;
        }
        let resolved = self.metered.lock().limits(flow).resolve(client_id);
        resolved.map(|(limit, _)| limit)
    }

    /// The most that the client can be given at once without being throttled in any case.
    pub fn bytes_max(&self, flow: Flow, client_id: &str) -> i32 {
        let limit = self.limit(flow, client_id);
        limit.map_or(i32::MAX, |limit| self.window.bytes_max(limit) as i32)
    }

    /// Counts a request or an answer of `bytes`; says for how many milliseconds to throttle the client, 0 for not
    /// at all. What a throttled client would have fetched is not counted, since it does not get it.
    pub fn record(&self, flow: Flow, client_id: &str, bytes: u64) -> i32 {
        match self.limited.load(Ordering::Relaxed) {
            true => self.record_at(flow, client_id, bytes, self.now_ms()),
            false => 0,
        }
    }

    fn record_at(&self, flow: Flow, client_id: &str, bytes: u64, now_ms: i64) -> i32 {
        let (window, bytes) = (self.window, bytes as f64);
        let mut metered = self.metered.lock();
        let Some((limit, share)) = metered.limits(flow).resolve(client_id) else {
            return 0;
        };
        let client = match share {
            Share::User => 0,
            _ => self.hasher.hash_one(client_id),
        };
        let meter = metered.meter(MeterKey::Bytes(flow, share, client), window, now_ms);
        meter.record(window, bytes, now_ms);
        let delay_ms = meter.delay_ms(window, limit, now_ms);
        if delay_ms > 0 && flow == Flow::Fetch {
            meter.record(window, -bytes, now_ms);
        }
        delay_ms.clamp(0, i32::MAX.into()) as i32
    }

    /// Counts a connection from `ip`; says for how many milliseconds to hold it before it is closed, 0 if it is
    /// welcome. One that is not welcome does not count. At most a sample's length, as in Kafka.
    pub fn record_connection(&self, ip: IpAddr) -> u64 {
        match self.limited.load(Ordering::Relaxed) {
            true => self.record_connection_at(ip, self.now_ms()),
            false => 0,
        }
    }

    fn record_connection_at(&self, ip: IpAddr, now_ms: i64) -> u64 {
        let window = self.window;
        let mut metered = self.metered.lock();
        let rates = &metered.connect;
        let Some(rate) = rates.by_ip.get(&ip).copied().or(rates.any_ip) else {
            return 0;
        };
        let key = MeterKey::Connections(self.hasher.hash_one(ip));
        let meter = metered.meter(key, window, now_ms);
        meter.record(window, 1.0, now_ms);
        let delay_ms = meter.delay_ms(window, rate, now_ms);
        if delay_ms > 0 {
            meter.record(window, -1.0, now_ms);
        }
        delay_ms.clamp(0, window.sample_ms).unsigned_abs()
    }

    /// Over what time rates are taken.
    pub fn window(&self) -> Window {
        self.window
    }

    fn now_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }
}

impl Metered {
    fn limits(&self, flow: Flow) -> &Limits {
        match flow {
            Flow::Produce => &self.produce,
            Flow::Fetch => &self.fetch,
        }
    }

    /// The meter of this key; those for whom there is no room share one.
    fn meter(&mut self, key: MeterKey, window: Window, now_ms: i64) -> &mut Meter {
        let full = |metered: &Metered| {
            metered.meters.len() >= METERS_MAX && !metered.meters.contains_key(&key)
        };
        if full(self) && now_ms - self.swept_ms >= window.sample_ms {
            self.meters
                .retain(|_, meter| !meter.is_quiet(window, now_ms));
            self.swept_ms = now_ms;
        }
        let key = match key {
            _ if !full(self) => key,
            MeterKey::Bytes(flow, share, _) => MeterKey::Bytes(flow, share, 0),
            MeterKey::Connections(_) => MeterKey::Connections(0),
        };
        self.meters.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `None`: any; left out: not part of the entity.
    fn entity(user: Option<Option<&str>>, client: Option<Option<&str>>) -> Entity {
        let part =
            |kind: &str, name: Option<Option<&str>>| Some((kind.into(), name?.map(str::to_owned)));
        part(USER, user)
            .into_iter()
            .chain(part(CLIENT_ID, client))
            .collect()
    }

    fn quotas(table: Table) -> Quotas {
        Quotas::new(&Config::default(), table)
    }

    fn produce(limit: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([(PRODUCER_BYTE_RATE.into(), limit)])
    }

    /// `ClientQuotaManager`'s order, each level taken away in turn.
    #[test]
    fn the_most_specific_quota_holds() {
        let (user, any, client) = (Some(Some(ANONYMOUS)), Some(None), Some(Some("c")));
        let order = [
            entity(user, client),
            entity(user, any),
            entity(user, None),
            entity(any, client),
            entity(any, any),
            entity(any, None),
            entity(None, client),
            entity(None, any),
        ];
        let mut table: Table = (1..)
            .zip(&order)
            .map(|(limit, entity)| (entity.clone(), produce(f64::from(limit))))
            .collect();
        table.insert(entity(Some(Some("someone")), None), produce(100.0));
        let quotas = quotas(table.clone());
        for (limit, entity) in (1..).zip(&order) {
            let found = quotas.limit(Flow::Produce, "c");
            assert_eq!(found, Some(f64::from(limit)), "{entity:?}");
            assert_eq!(quotas.limit(Flow::Fetch, "c"), None);
            table.remove(entity);
            quotas.publish(table.clone());
        }
        assert_eq!(quotas.limit(Flow::Produce, "c"), None);
    }

    #[test]
    fn a_client_without_an_id_has_only_its_users_quota() {
        let any = Some(None);
        let table = [(any, any), (None, any)].map(|(u, c)| (entity(u, c), produce(1.0)));
        let mut table = Table::from(table);
        assert_eq!(quotas(table.clone()).limit(Flow::Produce, ""), None);
        table.insert(entity(any, None), produce(2.0));
        assert_eq!(quotas(table).limit(Flow::Produce, ""), Some(2.0));
    }

    #[test]
    fn a_users_clients_share_its_quota_and_those_of_a_client_id_do_not() {
        let shared = quotas(Table::from([(entity(Some(None), None), produce(10.0))]));
        assert_eq!(shared.record_at(Flow::Produce, "a", 100, 0), 0);
        assert_eq!(shared.record_at(Flow::Produce, "b", 100, 0), 10_000);
        let own = quotas(Table::from([(entity(None, Some(None)), produce(10.0))]));
        assert_eq!(own.record_at(Flow::Produce, "a", 100, 0), 0);
        assert_eq!(own.record_at(Flow::Produce, "b", 100, 0), 0);
        assert_eq!(own.record_at(Flow::Produce, "b", 1, 0), 100);
        own.publish(Table::new());
        assert_eq!(own.record(Flow::Produce, "b", 1 << 40), 0);
        assert!(own.metered.lock().meters.is_empty());
    }

    /// What a throttled fetch would have brought is not sent, and so not counted.
    #[test]
    fn only_what_is_sent_is_counted() {
        let values = BTreeMap::from([(CONSUMER_BYTE_RATE.into(), 10.0)]);
        let quotas = quotas(Table::from([(entity(None, Some(None)), values)]));
        assert_eq!(quotas.bytes_max(Flow::Fetch, "c"), 100);
        assert_eq!(quotas.bytes_max(Flow::Produce, "c"), i32::MAX);
        assert_eq!(quotas.record_at(Flow::Fetch, "c", 200, 0), 10_000);
        assert_eq!(quotas.record_at(Flow::Fetch, "c", 100, 0), 0);
        assert!(quotas.record_at(Flow::Fetch, "c", 1, 0) > 0);
        assert_eq!(quotas.record_at(Flow::Fetch, "c", 100, 11_000), 0);
    }

    #[test]
    fn connections_are_counted_by_address_and_those_refused_are_not() {
        let of_ip = |ip: Option<&str>, rate: f64| {
            let entity = Entity::from([(IP.to_owned(), ip.map(str::to_owned))]);
            let values = BTreeMap::from([(CONNECTION_CREATION_RATE.to_owned(), rate)]);
            (entity, values)
        };
        let table = [
            of_ip(None, 1.0),
            of_ip(Some("10.0.0.1"), 2.0),
            of_ip(Some("localhost"), 9.0),
        ];
        let quotas = quotas(Table::from(table));
        let connect =
            |last, now_ms| quotas.record_connection_at(IpAddr::from([10, 0, 0, last]), now_ms);
        for (last, burst) in [(1, 20), (2, 10), (3, 10)] {
            assert!((0..burst).all(|_| connect(last, 0) == 0), "{last}");
            assert!((0..burst).all(|_| connect(last, 0) > 0), "{last}");
        }
        assert_eq!(connect(1, 0), 500);
        assert_eq!(connect(2, 0), 1000);
        assert_eq!(connect(2, 11_000), 0);
        assert!(quotas.limit(Flow::Produce, "c").is_none());
    }

    #[test]
    fn any_number_of_client_ids_costs_a_bounded_number_of_meters() {
        let quotas = quotas(Table::from([(entity(None, Some(None)), produce(10.0))]));
        for client in 0..3 * METERS_MAX {
            quotas.record_at(Flow::Produce, &client.to_string(), 1, 0);
        }
        assert!(quotas.metered.lock().meters.len() <= METERS_MAX + 1);
        quotas.record_at(Flow::Produce, "late", 1, 11_000);
        assert_eq!(quotas.metered.lock().meters.len(), 1);
    }
}
