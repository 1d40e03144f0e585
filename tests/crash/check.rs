//! The promises, one by one, held against what a broker shows that was started on a cut's image.

use crate::actors::{SETTING_AT_FIRST, TRANSACTIONAL};
use crate::common::keyed::{self, Change};
use crate::common::producer::{Batch, Client, batch};
use crate::common::transactional::{Producer, committed, offset};
use crate::ledger::{At, BySum, Kind, Ledger, Topic};
use crate::look::{self, Log, Name};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// How often each kind of promise was held against a cut.
pub type Counts = BTreeMap<&'static str, u64>;

/// What was promised and asked up to a cut.
pub struct Promised<'a> {
    pub ledger: &'a Ledger,
    pub by_sum: &'a BySum,
    pub cut: At,
    /// Batches that were stored after an earlier start on an earlier cut: all that were sent, and of those that must
    /// be there the offset.
    pub since: &'a [Since],
}

/// One of them.
pub struct Since {
    pub name: Name,
    pub batch: Vec<u8>,
    pub offset: Option<i64>,
}

/// What the values begin with that are produced after a start.
const AFTER: &str = "after";

/// A batch for each partition, other ones at each start.
pub fn more(names: &[Name], start: usize) -> Vec<(Name, Vec<u8>)> {
    let of = |name: &Name| {
        let text = format!("{AFTER} {start}");
        let change = Change {
            key: text.clone(),
            value: Some(text.clone()),
        };
        let bytes = match &*name.0 {
            "compact" => keyed::batch(None, 1_700_000_000_000, &[change]),
            _ => batch(None, &[text.as_bytes()]),
        };
        (name.clone(), bytes)
    };
    names.iter().map(of).collect()
}

/// All partitions that a broker shows.
pub fn partitions(client: &mut Client) -> Vec<Name> {
    let topics = look::topics(client).into_iter();
    let each = |(name, (_, count)): (String, (_, i32))| (0..count).map(move |i| (name.clone(), i));
    topics.flat_map(each).collect()
}

/// Checks everything, and that all partitions go on.
pub fn check(address: &str, promised: &Promised<'_>) -> Counts {
    let mut client = Client::connect(address).unwrap();
    let mut counts = Counts::new();
    let topics = check_topics(&mut client, promised, &mut counts);
    check_transactions(&mut client, promised, &topics, &mut counts);
    let names = partitions(&mut client);
    let logs = look::logs(&mut client, &names);
    for (name, log) in &logs {
        check_start(promised, name, log, &mut counts);
        match &*name.0 {
            "compact" => check_compacted(promised, topics[&name.0], log, &mut counts),
            "a" | "b" => {}
            _ => check_log(promised, topics[&name.0], name, log, &mut counts),
        }
        check_since(promised, name, log, &mut counts);
    }
    check_numbers(&mut client, promised, &topics, &mut counts);
    send_again(&mut client, promised, &topics, &logs, &mut counts);
    let more = more(&names, promised.since.len());
    for (offset, (name, _)) in look::produce(&mut client, &more).iter().zip(&more) {
        assert_eq!(*offset, logs[name].end, "{name:?} goes on at its end");
    }
    counts
}

impl Promised<'_> {
    fn held(&self, at: Option<At>) -> bool {
        at.is_some_and(|at| at <= self.cut)
    }

    /// Whether a topic must be there.
    fn must_be(&self, topic: &Topic) -> bool {
        self.held(topic.made.map(|(at, _)| at)) && !self.held(topic.end_asked)
    }
}

/// What was made is there, what was deleted is not. Gives the number in the ledger of each.
fn check_topics(
    client: &mut Client,
    promised: &Promised<'_>,
    counts: &mut Counts,
) -> BTreeMap<String, usize> {
    let found = look::topics(client);
    let ledger = promised.ledger;
    let mut numbers = BTreeMap::new();
    for (name, (id, _)) in &found {
        let numbered = ledger.topics.iter().enumerate();
        let mut same = numbered.filter(|(_, topic)| topic.name == *name);
        let number = same.clone().find(|(_, topic)| topic.has_id(*id));
        // Its making was not answered, and the next run did not have it.
        let number =
            number.or_else(|| same.rfind(|(_, t)| t.made.is_none() && t.asked <= promised.cut));
        let (number, topic) = number.unwrap_or_else(|| panic!("{name} is nobody's"));
        assert!(topic.asked <= promised.cut, "{name} is of the future");
        assert!(
            topic.made.is_none() || !promised.held(topic.ended),
            "{name} was deleted"
        );
        numbers.insert(name.clone(), number);
    }
    for (number, topic) in ledger.topics.iter().enumerate() {
        if promised.must_be(topic) {
            *counts.entry("topics made").or_default() += 1;
            assert_eq!(numbers.get(&topic.name), Some(&number), "{topic:?}");
        } else if promised.held(topic.ended) {
            *counts.entry("topics deleted").or_default() += 1;
        }
    }
    if let Some((_, count)) = found.get("grown") {
        let (least, most) = ledger.bounds("partitions grown", promised.cut);
        assert!(
            least <= (*count).into() && i64::from(*count) <= most.max(1),
            "grown: {count}"
        );
        *counts.entry("partitions added").or_default() += least as u64;
    }
    numbers
}

/// Nothing lies below the log start but what was deleted by request or retention.
fn check_start(promised: &Promised<'_>, name: &Name, log: &Log, counts: &mut Counts) {
    let (least, most) = promised
        .ledger
        .bounds(&format!("start {} {}", name.0, name.1), promised.cut);
    assert!(
        (least..=most).contains(&log.start),
        "{name:?} starts at {}: {least} to {most}",
        log.start
    );
    *counts.entry("log starts").or_default() += u64::from(least > 0);
    let (seen, _) = promised
        .ledger
        .bounds(&format!("seen {} {}", name.0, name.1), promised.cut);
    assert!(
        log.end >= seen,
        "{name:?} ends at {}, {seen} was seen",
        log.end
    );
    *counts.entry("high watermarks").or_default() += u64::from(seen > 0);
}

/// P1, P3: every batch that was acked is at its offset with its bytes; none is there that was not sent, and none twice.
fn check_log(promised: &Promised<'_>, number: usize, name: &Name, log: &Log, counts: &mut Counts) {
    let mut at = BTreeMap::new();
    let mut end = log.start;
    for batch in &log.batches {
        let header = &batch.header;
        assert!(header.base_offset <= end, "{name:?}: a hole at {end}");
        end = header.last_offset() + 1;
        let twice = at.insert(header.crc, header.base_offset);
        assert_eq!(twice, None, "{name:?}: twice");
        match promised.by_sum.get(&(number, name.1, header.crc)) {
            Some(&sent) => assert!(promised.ledger.sent[sent].asked <= promised.cut),
            None => assert!(
                promised.since.iter().any(|since| since.is(name, batch)),
                "{name:?}: nobody sent what is at {}",
                header.base_offset
            ),
        }
    }
    let sent = promised.ledger.sent.iter();
    for sent in sent.filter(|sent| (sent.topic, sent.index) == (number, name.1)) {
        let Some((when, offset)) = sent.answered else {
            continue;
        };
        if sent.acks == -1 && when <= promised.cut && offset + sent.records > log.start {
            let what = match sent.kind {
                Kind::Plain => "batches",
                Kind::Idempotent => "batches of idempotent producers",
            };
            *counts.entry(what).or_default() += 1;
            assert_eq!(at.get(&sent.crc), Some(&offset), "{name:?}: was acked");
        }
    }
}

impl Since {
    fn is(&self, name: &Name, batch: &Batch) -> bool {
        self.name == *name && self.batch[17..21] == batch.bytes[17..21]
    }
}

/// What was acked after an earlier start is there too.
fn check_since(promised: &Promised<'_>, name: &Name, log: &Log, counts: &mut Counts) {
    for since in promised.since.iter().filter(|since| since.name == *name) {
        let Some(offset) = since.offset else { continue };
        let there = |batch: &Batch| since.is(name, batch) && batch.header.base_offset == offset;
        assert!(
            log.batches.iter().any(there),
            "{name:?} {offset}: was acked"
        );
        *counts.entry("batches after a start").or_default() += 1;
    }
}

/// L5: the newest value of each key.
fn check_compacted(promised: &Promised<'_>, number: usize, log: &Log, counts: &mut Counts) {
    let mut sent = Vec::new();
    let mut acked = 0;
    for batch in promised
        .ledger
        .sent
        .iter()
        .filter(|sent| sent.topic == number)
    {
        let Some((key, value)) = &batch.keyed else {
            continue;
        };
        sent.push(Change {
            key: key.clone(),
            value: value.clone(),
        });
        if let Some((when, offset)) = batch.answered {
            assert_eq!(offset + 1, sent.len() as i64, "one after the other");
            acked += usize::from(when <= promised.cut);
        }
    }
    let ours = |change: &Change| !change.key.starts_with(AFTER);
    let all: Vec<Change> = log.batches.iter().flat_map(keyed::changes).collect();
    let found = keyed::sum(all.iter().filter(|change| ours(change)));
    // What a start adds comes last, each at one offset.
    let added = promised
        .since
        .iter()
        .filter(|since| since.name.0 == "compact");
    let end = log.end as usize;
    let least = end.saturating_sub(added.count()).max(acked);
    let may_be: Vec<keyed::Map> = (least..=end.min(sent.len()))
        .map(|end| keyed::sum(&sent[..end]))
        .collect();
    assert!(
        may_be.contains(&found),
        "{acked} were acked, the log ends at {end}: {found:#?} is not {may_be:#?}"
    );
    *counts.entry("keyed records").or_default() += acked as u64;
}

/// Committed offsets, settings and producer ids.
fn check_numbers(
    client: &mut Client,
    promised: &Promised<'_>,
    topics: &BTreeMap<String, usize>,
    counts: &mut Counts,
) {
    let (ledger, cut) = (promised.ledger, promised.cut);
    if topics.contains_key("t") {
        let (least, most) = ledger.bounds("offset", cut);
        let offset = look::committed_offset(client, "readers", "t").max(0);
        assert!(
            (least..=most).contains(&offset),
            "offset {offset}: {least} to {most}"
        );
        *counts.entry("committed offsets").or_default() += u64::from(least > 0);
        let (least, most) = ledger.bounds("setting", cut);
        let value = look::setting(client, "t", "max.message.bytes");
        let value = value.expect("a value").parse::<i64>().expect("a number") - SETTING_AT_FIRST;
        assert!(
            (least..=most).contains(&value),
            "setting {value}: {least} to {most}"
        );
        *counts.entry("settings").or_default() += u64::from(least > 0);
    }
    let (used, _) = ledger.bounds("producer id", cut);
    let id = client.producer_id().unwrap();
    assert!(id > used || used == 0, "producer id {id} again");
    *counts.entry("producer ids").or_default() += u64::from(used > 0);
}

/// What an idempotent producer sends again, since it knows of no answer, is not stored again.
fn send_again(
    client: &mut Client,
    promised: &Promised<'_>,
    topics: &BTreeMap<String, usize>,
    logs: &BTreeMap<Name, Log>,
    counts: &mut Counts,
) {
    let mut again = Vec::new();
    let mut offsets = Vec::new();
    for (name, log) in logs {
        let ours = |batch: &&Batch| {
            let key = (topics[&name.0], name.1, batch.header.crc);
            let sent = promised.by_sum.get(&key);
            batch.header.producer_id >= 0 && sent.is_some()
        };
        let last = log.batches.iter().rfind(ours);
        if let Some(last) = last.filter(|_| name.0 != "compact") {
            let mut bytes = last.bytes.clone();
            bytes[..8].fill(0);
            offsets.push(last.header.base_offset);
            again.push((name.clone(), bytes));
        }
    }
    assert_eq!(look::produce(client, &again), offsets, "{again:?}");
    *counts.entry("batches sent again").or_default() += offsets.len() as u64;
}

/// Each transaction is in both topics or in none, as its end was asked for and answered; the group has read as far.
fn check_transactions(
    client: &mut Client,
    promised: &Promised<'_>,
    topics: &BTreeMap<String, usize>,
    counts: &mut Counts,
) {
    if !(topics.contains_key("a") && topics.contains_key("b")) {
        return;
    }
    let patience = Instant::now() + Duration::from_secs(60);
    for (id, newer) in TRANSACTIONAL {
        while Producer::new(client, id, newer).unwrap().is_err() {
            assert!(Instant::now() < patience, "{id} hangs");
        }
    }
    let mut read = |topic| loop {
        match committed(client, topic).unwrap() {
            Ok((values, true)) => {
                let ours = values.iter().filter(|value| !value.starts_with(AFTER));
                return ours
                    .map(|v| v.parse().expect("a number"))
                    .collect::<Vec<usize>>();
            }
            other => assert!(Instant::now() < patience, "{other:?}"),
        }
    };
    let (a, b) = (read("a"), read("b"));
    assert_eq!(a, b, "torn");
    let last = a.last().map_or(-1, |&number| number as i64);
    assert_eq!(offset(client).unwrap(), Ok(last), "{a:?}");
    let there: BTreeSet<usize> = a.iter().copied().collect();
    assert_eq!(there.len(), a.len(), "twice: {a:?}");
    for (number, txn) in promised.ledger.txns.iter().enumerate() {
        let may = txn.commit && promised.held(txn.end_asked);
        let must = may && promised.held(txn.ended);
        let is = there.contains(&number);
        assert!(is <= may, "transaction {number} was not committed");
        assert!(is >= must, "transaction {number} was committed: {a:?}");
        if promised.held(txn.ended) {
            let what = if must {
                "transactions committed"
            } else {
                "transactions aborted"
            };
            *counts.entry(what).or_default() += 1;
        }
    }
}

/// No line of a broker's log tells of damage or loss: a power cut leaves neither. What was being made for a topic
/// or partition that was never there may be damaged.
pub fn check_log_lines(log: &str, promised: &Promised<'_>) {
    let topics = || promised.ledger.topics.iter();
    let there: HashSet<&str> = topics()
        .filter(|topic| promised.must_be(topic))
        .map(|topic| &*topic.name)
        .collect();
    let (grown, _) = promised.ledger.bounds("partitions grown", promised.cut);
    let unmade = |line: &str| {
        let path = line.split(' ').find(|word| word.contains('/'));
        let dir = path.and_then(|path| path.rsplit('/').nth(1));
        let topic = dir.and_then(|dir| dir.rsplit_once('-'));
        topic.is_some_and(|(topic, index)| {
            let is_more = topic == "grown" && index.parse().is_ok_and(|index: i64| index >= grown);
            is_more || !there.contains(topic)
        })
    };
    for line in log.lines() {
        let is_bad = ["ERROR", "offline", "lost", "panicked"];
        let is_bad = is_bad.iter().any(|bad| line.contains(bad));
        let is_damage = line.contains("garbled") && !unmade(line);
        assert!(!is_bad && !is_damage, "{line}");
        if let Some((_, path)) = line.split_once(" bytes are kept as ") {
            assert!(std::path::Path::new(path.trim()).exists(), "{line}");
        }
    }
}
