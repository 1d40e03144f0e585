//! A life of a broker in small, always the same: topics are made, records produced by every kind of producer, read,
//! deleted, compacted and aged, a topic goes and comes back. Whatever is refused must be refused with the right code.

use crate::common::keyed::{self, Change};
use crate::common::producer::Client;
use crate::common::requests;
use crate::common::transactional::Producer;
use crate::told::{Place, Told, UNSTABLE};
use ottla::api::delete_records::*;
use ottla::api::init_producer_id::*;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

const TIME_MS: i64 = 1_700_000_000_000;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const KAFKA_STORAGE_ERROR: i16 = 56;
/// NOT_LEADER_OR_FOLLOWER, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR,
/// NOT_ENOUGH_REPLICAS (a transaction that cannot be verified), CONCURRENT_TRANSACTIONS, UNSTABLE_OFFSET_COMMIT: what
/// clients take as "later, please".
const LATER: [i16; 8] = [KAFKA_STORAGE_ERROR, 6, 14, 15, 16, 19, 51, 88];

/// The two ways of transactions, and who takes them.
const PRODUCERS: [(&str, bool); 2] = [("old", false), ("new", true)];

/// The settings that let everything happen soon.
pub const SETTINGS: [&str; 3] = [
    "log.retention.check.interval.ms=20",
    "log.cleaner.backoff.ms=5",
    "transaction.state.log.num.partitions=1",
];

/// A name, partitions, settings.
type Topic = (&'static str, i32, &'static [(&'static str, &'static str)]);

const TOPICS: [Topic; 6] = [
    (
        "plain",
        2,
        &[("segment.bytes", "300"), ("file.delete.delay.ms", "0")],
    ),
    (
        "keyed",
        1,
        &[
            ("cleanup.policy", "compact"),
            ("segment.bytes", "400"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("file.delete.delay.ms", "0"),
        ],
    ),
    (
        "sized",
        1,
        &[
            ("retention.bytes", "600"),
            ("segment.bytes", "300"),
            ("file.delete.delay.ms", "0"),
        ],
    ),
    ("a", 1, &[]),
    ("b", 1, &[]),
    ("gone", 1, &[]),
];

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much later than an answer a line that the broker logged before it may be known.
const LATE: Duration = Duration::from_secs(5);

/// The broker has ended.
#[derive(Debug)]
pub struct Gone;

/// One who leads the life, and keeps what it is told.
pub struct Caller<'a> {
    address: String,
    client: Option<Client>,
    pub told: &'a mut Told,
    /// Makes values differ from those of other lives.
    life: u32,
    said: u32,
    /// Connections that broke.
    pub broken: u32,
}

impl<'a> Caller<'a> {
    /// One who calls the broker at `address`.
    pub fn new(address: &str, told: &'a mut Told, life: u32) -> Caller<'a> {
        Caller {
            address: address.into(),
            client: None,
            told,
            life,
            said: 0,
            broken: 0,
        }
    }

    /// Calls; `None` if the connection broke on the way.
    pub fn call<T>(
        &mut self,
        what: impl FnOnce(&mut Client, &mut Told) -> io::Result<T>,
    ) -> Result<Option<T>, Gone> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.address).map_err(|_| Gone)?,
        };
        match what(&mut client, self.told) {
            Ok(answer) => {
                self.client = Some(client);
                Ok(Some(answer))
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                panic!("no answer comes: {error}")
            }
            Err(_) => {
                self.broken += 1;
                Ok(None)
            }
        }
    }

    /// The life.
    pub fn live(&mut self, has_happened: impl Fn(&str) -> bool) -> Result<(), Gone> {
        self.make_topics()?;
        self.produce()?;
        self.commit_transactions()?;
        self.look()?;
        self.delete_records()?;
        self.wait_for_cleaner(has_happened)?;
        self.renew()?;
        self.look()
    }

    fn make_topics(&mut self) -> Result<(), Gone> {
        for (name, partitions, settings) in TOPICS {
            match self.call(|client, _| client.try_create(name, partitions, settings))? {
                Some(Ok(_)) | Some(Err(TOPIC_ALREADY_EXISTS)) => {
                    self.told.made.insert(name);
                    self.told.acks += 1;
                }
                Some(Err(code)) => assert_eq!(code, KAFKA_STORAGE_ERROR, "making {name}"),
                None => {}
            }
        }
        Ok(())
    }

    fn produce(&mut self) -> Result<(), Gone> {
        let request = InitProducerIdRequest::default();
        let id = self.call(|client, _| {
            let answer: InitProducerIdResponse = client.call(4, &request)?;
            Ok((answer.error_code, answer.producer_id))
        })?;
        if let Some((code, id)) = id {
            match code {
                0 => self.say_in_sequence(("plain", 0), id)?,
                _ => assert!(LATER.contains(&code), "InitProducerId: {code}"),
            }
        }
        for n in 0..6 {
            self.say(("plain", 1), "k", 1)?;
            self.say(("sized", 0), "k", -1)?;
            self.say(("keyed", 0), &format!("k{}", n % 3), 1 - 2 * (n % 2))?;
        }
        self.say(("keyed", 0), "last", -1)?;
        self.say(("gone", 0), "k", -1)
    }

    /// As an idempotent producer, which sends again what was refused.
    fn say_in_sequence(&mut self, place: Place, id: i64) -> Result<(), Gone> {
        const TRIES: u32 = 4;
        for sequence in 0..6 {
            let change = self.change("k");
            self.told
                .sent_once(place, change.value.as_deref().unwrap_or_default());
            let mut stored = false;
            for _ in 0..TRIES {
                stored = stored || self.send(place, Some((id, sequence)), &change, -1)?;
            }
            if !stored {
                // Its next one would be out of order.
                return Ok(());
            }
        }
        Ok(())
    }

    fn change(&mut self, key: &str) -> Change {
        self.said += 1;
        Change {
            key: key.into(),
            value: Some(format!("{}.{} {}", self.life, self.said, "v".repeat(40))),
        }
    }

    fn say(&mut self, place: Place, key: &str, acks: i16) -> Result<(), Gone> {
        let change = self.change(key);
        self.send(place, None, &change, acks).map(drop)
    }

    fn send(
        &mut self,
        place: Place,
        producer: Option<(i64, i32)>,
        change: &Change,
        acks: i16,
    ) -> Result<bool, Gone> {
        let (topic, index) = place;
        let batch = keyed::batch(producer, TIME_MS, std::slice::from_ref(change));
        let answer = self.call(|client, _| {
            client.send_produce(acks, &[(topic, index, &batch)])?;
            Ok(client.receive_produce()?.remove(0))
        })?;
        let Some(answer) = answer else {
            return Ok(false);
        };
        match answer.error_code {
            0 => {
                self.told.acked(place, answer.base_offset, change);
                return Ok(true);
            }
            UNKNOWN_TOPIC_OR_PARTITION => assert!(!self.told.made.contains(topic), "{topic}"),
            code => assert_eq!(code, KAFKA_STORAGE_ERROR, "producing to {topic}-{index}"),
        }
        Ok(false)
    }

    /// Sends until an answer comes; whether that was an acknowledgement.
    fn send_whole(&mut self, place: Place, change: &Change) -> Result<bool, Gone> {
        loop {
            let broken = self.broken;
            let stored = self.send(place, None, change, -1)?;
            if self.broken == broken {
                return Ok(stored);
            }
        }
    }

    /// One in the old way and one in the new, each committed and then one aborted.
    fn commit_transactions(&mut self) -> Result<(), Gone> {
        for (id, newer) in PRODUCERS {
            for committed in [true, false] {
                self.transaction(id, newer, committed)?;
            }
        }
        Ok(())
    }

    fn transaction(&mut self, id: &'static str, newer: bool, committed: bool) -> Result<(), Gone> {
        let values = ["a", "b"].map(|topic| (topic, self.change("").value.unwrap_or_default()));
        let offset = self.told.offset + 1;
        let code = self.call(|client, told| {
            let mut producer = match Producer::new(client, id, newer)? {
                Ok(producer) => producer,
                Err(code) => return Ok(code),
            };
            for (topic, value) in &values {
                match producer.write(client, topic, value)? {
                    0 => {}
                    code => return Ok(code),
                }
            }
            match producer.commit_offset(client, offset)? {
                0 => {}
                code => return Ok(code),
            }
            let code = producer.end(client, committed)?;
            if code == 0 {
                told.acks += 1;
                match committed {
                    true => told.committed.extend(values.clone()),
                    false => told.aborted.extend(values.clone()),
                }
                told.offset = told.offset.max(if committed { offset } else { 0 });
            }
            Ok(code)
        })?;
        let code = code.unwrap_or(0);
        let excused =
            code == UNKNOWN_TOPIC_OR_PARTITION && !self.told.made.is_superset(&["a", "b"].into());
        assert!(
            code == 0 || excused || LATER.contains(&code),
            "transaction {id}: {code}"
        );
        Ok(())
    }

    /// Everything is there, or not for the moment.
    fn look(&mut self) -> Result<(), Gone> {
        if let Some(Err(code)) = self.call(|client, told| told.check(client))? {
            assert!(LATER.contains(&code), "reading: {code}");
        }
        Ok(())
    }

    /// Everything is there, at once or a little later; but where `is_away`.
    pub fn look_until_it_is_there(&mut self, is_away: impl Fn() -> bool) -> Result<(), Gone> {
        let began = Instant::now();
        // Asked again and again: what the broker logs is known a little later than what it answers.
        while !is_away() {
            let seen = self.call(|client, told| told.check(client))?;
            assert!(began.elapsed() < PATIENCE, "{seen:?}");
            match seen {
                Some(Ok(())) => return Ok(()),
                // A transaction whose end was refused holds them up until its producer begins anew.
                Some(Err(UNSTABLE)) => self.end_transactions()?,
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end_transactions(&mut self) -> Result<(), Gone> {
        for (id, newer) in PRODUCERS {
            self.call(|client, _| Producer::new(client, id, newer).map(drop))?;
        }
        Ok(())
    }

    fn delete_records(&mut self) -> Result<(), Gone> {
        let code = self.delete_some()?.unwrap_or(0);
        assert!(
            [0, KAFKA_STORAGE_ERROR].contains(&code),
            "DeleteRecords: {code}"
        );
        Ok(())
    }

    /// Asks for the oldest records of a partition to be deleted; gives the error's code.
    pub fn delete_some(&mut self) -> Result<Option<i16>, Gone> {
        let place = ("plain", 0);
        let offset = self.told.next_start(place);
        if offset == 0 {
            return Ok(Some(0));
        }
        self.told.deleted_to(place, offset, None);
        let request = requests::delete_records(place.0, place.1, offset);
        let answer = self.call(|client, _| client.call(2, &request))?;
        Ok(answer.map(|answer: DeleteRecordsResponse| {
            let answer = &answer.topics[0].partitions[0];
            if answer.error_code == 0 {
                self.told
                    .deleted_to(place, offset, Some(answer.low_watermark));
            }
            answer.error_code
        }))
    }

    /// Until compaction and retention have done what they can.
    fn wait_for_cleaner(&mut self, has_happened: impl Fn(&str) -> bool) -> Result<(), Gone> {
        let began = Instant::now();
        loop {
            let start = self.call(|client, _| client.list_offset("sized", 0, -2))?;
            let aged = matches!(start, Some(Ok(1..)));
            let ended = has_happened("compacted");
            if aged && ended || began.elapsed() > Duration::from_secs(1) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A topic goes, and comes back without what was in it.
    fn renew(&mut self) -> Result<(), Gone> {
        let gone = "gone";
        let code = self.call(|client, _| client.delete(gone))?;
        match code {
            Some(0) => self.told.forget(gone),
            Some(UNKNOWN_TOPIC_OR_PARTITION) => assert!(!self.told.made.contains(gone)),
            Some(code) => assert_eq!(code, KAFKA_STORAGE_ERROR, "deleting"),
            // It may be there, or not.
            None => self.told.forget(gone),
        }
        if code == Some(0) {
            let settings = [("segment.bytes", "300")];
            let made = self.call(|client, _| client.try_create(gone, 1, &settings))?;
            if let Some(Ok(_)) = made {
                self.told.made.insert(gone);
            }
            self.say((gone, 0), "k", -1)?;
        }
        Ok(())
    }

    /// Whatever was made takes records again: at once, but where `is_offline`, which is known a little later.
    pub fn resume(&mut self, is_offline: impl Fn(Place) -> bool) -> Result<(), Gone> {
        for (topic, partitions, _) in TOPICS {
            for index in 0..partitions {
                let place = (topic, index);
                let change = self.change("k");
                if !self.told.made.contains(topic) || self.send_whole(place, &change)? {
                    continue;
                }
                let began = Instant::now();
                while !is_offline(place) {
                    assert!(began.elapsed() < LATE, "{place:?} takes no record");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        Ok(())
    }
}
