//! What was asked of the broker and what it answered, each with the moment: what a cut may and may not have taken.
//!
//! A request counts as asked from before it was sent, and as answered from after its answer came: a cut in between
//! may have it or not.

use ottla::wire::Uuid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// A moment: the run of the broker, from 1 on, and how long its record of changes was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    pub run: usize,
    pub bytes: u64,
}

/// A batch that was sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent {
    /// The topic, by its number in [`Ledger::topics`].
    pub topic: usize,
    pub index: i32,
    /// Tells its bytes from those of every other.
    pub crc: u32,
    pub records: i64,
    pub acks: i16,
    pub kind: Kind,
    pub asked: At,
    /// When it was stored, and its offset.
    pub answered: Option<(At, i64)>,
    /// Of a keyed record: key and value.
    pub keyed: Option<(String, Option<String>)>,
}

/// Who sent a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A producer without a number.
    Plain,
    /// One that sends again what was not answered.
    Idempotent,
}

/// A topic from its making to its end; another of the same name is another.
#[derive(Debug, Serialize, Deserialize)]
pub struct Topic {
    pub name: String,
    pub asked: At,
    /// When it was made, and its id.
    pub made: Option<(At, [u8; 16])>,
    pub end_asked: Option<At>,
    pub ended: Option<At>,
}

/// A number that only grows: a committed offset, a log start, a setting's value.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    pub value: i64,
    pub asked: Option<At>,
    pub answered: Option<At>,
}

/// A transaction, by its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Txn {
    pub commit: bool,
    pub end_asked: Option<At>,
    pub ended: Option<At>,
}

/// All of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The data directory that was recorded.
    pub root: PathBuf,
    pub runs: usize,
    pub sent: Vec<Sent>,
    pub topics: Vec<Topic>,
    pub marks: HashMap<String, Vec<Mark>>,
    pub txns: Vec<Txn>,
}

impl Topic {
    pub fn has_id(&self, id: Uuid) -> bool {
        self.made.is_some_and(|(_, made)| made == id.0)
    }
}

impl Ledger {
    /// What a number was at a cut: at least what was answered, at most what was asked.
    pub fn bounds(&self, name: &str, cut: At) -> (i64, i64) {
        let marks = || self.marks.get(name).into_iter().flatten();
        let before = |at: Option<At>| at.is_some_and(|at| at <= cut);
        let answered = marks().filter(|mark| before(mark.answered));
        let asked = marks().filter(|mark| before(mark.asked));
        let value = |mark: &Mark| mark.value;
        (
            answered.map(value).max().unwrap_or(0),
            asked.map(value).max().unwrap_or(0),
        )
    }
}

/// The ledger while it is written, beside the record of changes of the run.
pub struct Book {
    ledger: Mutex<Ledger>,
    changes: Mutex<(usize, PathBuf)>,
}

impl Book {
    pub fn new(root: PathBuf) -> Book {
        let ledger = Ledger {
            root,
            ..Ledger::default()
        };
        Book {
            ledger: Mutex::new(ledger),
            changes: Mutex::default(),
        }
    }

    /// From now on `changes` grows.
    pub fn begin_run(&self, changes: &Path) {
        let mut ledger = self.open();
        ledger.runs += 1;
        *self.changes.lock().unwrap() = (ledger.runs, changes.into());
    }

    pub fn now(&self) -> At {
        let changes = self.changes.lock().unwrap();
        At {
            run: changes.0,
            bytes: fs::metadata(&changes.1).map_or(0, |m| m.len()),
        }
    }

    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub fn close(self) -> Ledger {
        self.ledger.into_inner().unwrap()
    }

    /// Notes that a number is asked to become `value`, and gives its place among those of the name.
    pub fn ask(&self, name: &str, value: i64) -> usize {
        let asked = Some(self.now());
        self.note(name, value, asked, None)
    }

    /// Notes that it did.
    pub fn answer(&self, name: &str, place: usize) {
        let now = self.now();
        self.open().marks.get_mut(name).expect("it was asked")[place].answered = Some(now);
    }

    /// Notes a number that nobody asked for.
    pub fn seen(&self, name: &str, value: i64) {
        let answered = Some(self.now());
        self.note(name, value, None, answered);
    }

    fn note(&self, name: &str, value: i64, asked: Option<At>, answered: Option<At>) -> usize {
        let mut ledger = self.open();
        let marks = ledger.marks.entry(name.into()).or_default();
        marks.push(Mark {
            value,
            asked,
            answered,
        });
        marks.len() - 1
    }
}

/// The batches of a ledger by topic, partition and checksum.
pub type BySum = HashMap<(usize, i32, u32), usize>;

impl Ledger {
    pub fn by_sum(&self) -> BySum {
        let key = |sent: &Sent| (sent.topic, sent.index, sent.crc);
        let numbered = self.sent.iter().enumerate();
        numbered.map(|(n, sent)| (key(sent), n)).collect()
    }
}
