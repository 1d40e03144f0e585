//! What a setting's text may say: its type, its limits, and the types that the broker reads it as.
//!
//! Invariant: a text that [`Setting::check`](super::Setting::check) passes is read by the field's type without an
//! error, because both look at the same [`Kind`] and [`Limits`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A setting's type, as Kafka documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Boolean,
    Text,
    Int,
    Long,
    Double,
    List,
}

impl Kind {
    /// The type's number in a DescribeConfigs answer (Kafka's `ConfigType`, KIP-569).
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }

    /// The type's name in Kafka's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Text => "string",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::List => "list",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Kind::Boolean => "true or false",
            Kind::Text => "text",
            Kind::Int => "a 32-bit integer",
            Kind::Long => "a 64-bit integer",
            Kind::Double => "a number",
            Kind::List => "a comma-separated list",
        }
    }
}

/// Which texts of its type a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Limits {
    Any,
    AtLeast(i64),
    /// Both ends included.
    Between(i64, i64),
    OneOf(&'static [&'static str]),
    EachOf(&'static [&'static str]),
    /// A list of exactly one entry.
    OneEntry,
    /// A list of `ADDRESS:COUNT`.
    Addresses,
    /// A list of `NAME://HOST:PORT`, or of `HOST:PORT` for the name PLAINTEXT.
    Endpoints,
    Empty,
}

impl Limits {
    /// Whether `text`, of the type `kind`, is within the limits.
    pub fn admit(&self, kind: Kind, text: &str) -> bool {
        let in_range = |low: i64, high: i64| match kind {
            Kind::Double => text
                .parse::<f64>()
                .is_ok_and(|n| n >= low as f64 && n <= high as f64),
            Kind::Int => text
                .parse::<i32>()
                .is_ok_and(|n| (low..=high).contains(&n.into())),
            _ => text.parse::<i64>().is_ok_and(|n| (low..=high).contains(&n)),
        };
        match *self {
            Limits::Any => match kind {
                Kind::Boolean => bool::read(text).is_some(),
                Kind::Int | Kind::Long => in_range(i64::MIN, i64::MAX),
                Kind::Double => text.parse::<f64>().is_ok_and(f64::is_finite),
                Kind::Text | Kind::List => true,
            },
            Limits::AtLeast(low) => in_range(low, i64::MAX),
            Limits::Between(low, high) => in_range(low, high),
            Limits::OneOf(words) => words.contains(&text),
            Limits::EachOf(words) => entries(text).all(|entry| words.contains(&entry)),
            Limits::OneEntry => entries(text).count() == 1,
            Limits::Addresses => PerIp::read(text).is_some(),
            Limits::Endpoints => Vec::<Endpoint>::read(text).is_some(),
            Limits::Empty => text.is_empty(),
        }
    }

    /// What is admitted, for an error line: "a 32-bit integer of at least 1".
    pub fn expected(&self, kind: Kind) -> String {
        let any = kind.expected();
        match *self {
            Limits::Any => any.to_owned(),
            Limits::AtLeast(low) => format!("{any} of at least {low}"),
            Limits::Between(low, high) if low == high => format!("{low}"),
            Limits::Between(low, high) => format!("{any} from {low} to {high}"),
            Limits::OneOf(words) => words.join(" or "),
            Limits::EachOf(words) => format!("{any} of {}", words.join(", ")),
            Limits::OneEntry => "exactly one entry".to_owned(),
            Limits::Addresses => format!("{any} of ADDRESS:COUNT, separated by commas"),
            Limits::Endpoints => format!("{any} of HOST:PORT or NAME://HOST:PORT"),
            Limits::Empty => "nothing".to_owned(),
        }
    }
}

/// The entries of a comma-separated list, trimmed, empty ones left out.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|e| !e.is_empty())
}

/// A Rust type that a setting is read as.
pub trait Typed: Sized {
    /// The type's name in Kafka's documentation.
    const KIND: Kind;
    /// The value that `text` states, if it states one.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! typed {
    ($($type:ty = $kind:ident, $read:expr;)*) => {
        $(impl Typed for $type {
            const KIND: Kind = Kind::$kind;
            fn read(text: &str) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text)
            }
        })*
    };
}

typed! {
    bool = Boolean, |text| match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    };
    i32 = Int, |text| text.parse().ok();
    i64 = Long, |text| text.parse().ok();
    f64 = Double, |text| text.parse().ok();
    String = Text, |text| Some(text.to_owned());
    PathBuf = List, |text| entries(text).next().map(PathBuf::from);
    Vec<String> = List, |text| Some(entries(text).map(str::to_owned).collect());
    PerIp = Text, |text| entries(text).map(per_ip).collect();
    Vec<Endpoint> = List, |text| entries(text).map(Endpoint::parse).collect();
    TimestampType = Text, |text| match text {
        "CreateTime" => Some(TimestampType::CreateTime),
        "LogAppendTime" => Some(TimestampType::LogAppendTime),
        _ => None,
    };
    CleanupPolicy = List, |text| Some(CleanupPolicy {
        compact: entries(text).any(|e| e == "compact"),
        delete: entries(text).any(|e| e == "delete"),
    });
}

/// Numbers by address.
pub type PerIp = BTreeMap<IpAddr, i32>;

/// Reads `ADDRESS:COUNT`; an IPv6 address may stand in brackets.
fn per_ip(text: &str) -> Option<(IpAddr, i32)> {
    let (ip, count) = text.rsplit_once(':')?;
    let inner = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let ip: IpAddr = inner.unwrap_or(ip).trim().parse().ok()?;
    let count = count.trim().parse().ok().filter(|count| *count >= 0)?;
    Some((ip.to_canonical(), count))
}

/// Whose clock a topic's records are stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's wall clock, at the append.
    LogAppendTime,
}

/// What may be taken out of a topic's logs. With neither, everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Of each key only the newest record has to stay.
    pub compact: bool,
    /// Segments beyond the retention limits go.
    pub delete: bool,
}

/// A listener, or the address by which clients are told to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, in capitals; PLAINTEXT when none was given.
    pub name: String,
    /// A host name or an address, without brackets; empty for all interfaces.
    pub host: String,
    /// The TCP port; 0 lets the kernel choose.
    pub port: u16,
}

impl Endpoint {
    /// Reads `NAME://HOST:PORT` or `HOST:PORT`; an IPv6 address stands in brackets.
    fn parse(text: &str) -> Option<Endpoint> {
        let (name, address) = text.split_once("://").unwrap_or(("PLAINTEXT", text));
        let (host, port) = address.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let sane = !name.is_empty()
            && !host.contains(['/', ' '])
            && (inner.is_some() || !host.contains([':', '[', ']']));
        sane.then_some(Endpoint {
            name: name.to_ascii_uppercase(),
            host: inner.unwrap_or(host).to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Whether the address means every interface of the machine, so that no client could be sent to it.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

/// `HOST:PORT`, as a socket address is written.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => write!(f, "0.0.0.0:{}", self.port),
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_in_every_form() {
        let show = |text| Endpoint::parse(text).map(|e| format!("{} {e}", e.name));
        assert_eq!(show("127.0.0.1:9092").unwrap(), "PLAINTEXT 127.0.0.1:9092");
        assert_eq!(show("PLAINTEXT://:9092").unwrap(), "PLAINTEXT 0.0.0.0:9092");
        assert_eq!(show("internal://[::1]:0").unwrap(), "INTERNAL [::1]:0");
        for bad in [
            "",
            "host",
            "host:",
            "host:65536",
            "::1:9092",
            "http://a/b:1",
            "://h:1",
            "a b:1",
        ] {
            assert_eq!(show(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn limits_hold_at_their_ends() {
        let cases = [
            (Limits::AtLeast(1), Kind::Int, "1", true),
            (Limits::AtLeast(1), Kind::Int, "0", false),
            (Limits::AtLeast(1), Kind::Int, "2147483648", false),
            (Limits::AtLeast(1), Kind::Long, "2147483648", true),
            (Limits::AtLeast(1), Kind::Long, "9223372036854775808", false),
            (Limits::Between(0, 1), Kind::Double, "0.5", true),
            (Limits::Between(0, 1), Kind::Double, "1.1", false),
            (Limits::Between(0, 1), Kind::Double, "NaN", false),
            (Limits::Any, Kind::Boolean, "TRUE", true),
            (Limits::Any, Kind::Boolean, "yes", false),
            (
                Limits::EachOf(&["compact", "delete"]),
                Kind::List,
                "compact, delete",
                true,
            ),
            (
                Limits::EachOf(&["compact", "delete"]),
                Kind::List,
                "compact,erase",
                false,
            ),
            (Limits::OneEntry, Kind::List, "/a,/b", false),
            (Limits::OneEntry, Kind::List, "", false),
            (Limits::Empty, Kind::List, "0:1", false),
            (
                Limits::Addresses,
                Kind::Text,
                "10.0.0.1:5, ::1:0,[fe80::1]:7",
                true,
            ),
            (Limits::Addresses, Kind::Text, "localhost:5", false),
            (Limits::Addresses, Kind::Text, "10.0.0.1:-1", false),
        ];
        for (limits, kind, text, admitted) in cases {
            assert_eq!(limits.admit(kind, text), admitted, "{limits:?} {text:?}");
        }
    }
}
