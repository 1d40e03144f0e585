//! `ottla verify`: reads a data directory that no broker uses, and says what in it is not as it was written.
//!
//! Owns: the order of the look, the words of its findings, and what counts as damage. What is wrong with a segment's
//! files [`audit`] says, which the scrub of a running broker asks too; here come the records of every batch, what the
//! internal topics' records mean, and the small state of the directory as a whole.
//!
//! Invariants: nothing on disk changes, and no broker starts meanwhile; memory is a read buffer, one batch, and the
//! catalog. A live broker's files are not judged from outside: its indexes and its last batches are in memory too.

mod eyes;

use crate::catalog::{METADATA_TOPIC, partition_of};
use crate::clock::{BROKER_TIME, parse_broker_time};
use crate::error::{self, Context, Error, Result};
use crate::storage::audit::{self, Finding, Kind};
use crate::storage::checkpoint::{self, CLEAN_SHUTDOWN, CLEANER_OFFSETS, LOG_STARTS};
use crate::storage::checkpoint::{META_PROPERTIES, Offsets, RECOVERY_POINTS, SCRUB_TIMES};
use crate::writer::TURN_BYTES_PER_PARTITION_MAX;
use eyes::Eyes;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What `ottla verify --help` prints.
pub const USAGE: &str = "\
Usage: ottla verify --data DIR [TOPIC[-PARTITION]]...

Reads the data directory of a broker that is stopped, all of it or these topics and partitions, and says what in it is
not as it was written. Changes nothing. Each finding is a line on stdout:

  damaged TOPIC-PARTITION OFFSETS FILE:FROM..TO: WHAT   records are lost; the scrub sets their bytes aside
  torn    ...   the end of a write that a stop cut short, never acknowledged; the next start cuts it
  gap     ...   offsets that were lost before
  hint    ...   an index, snapshot or checkpoint that the next start makes anew
  kept    ...   bytes that an earlier start set aside
  unread  ...   what could not be looked at

The last line is `verify:` and figures. Progress goes to stderr.

Exit codes:
  0    nothing is lost: no finding, or only hints, gaps of before, torn ends and bytes that were set aside
  1    records are lost
  2    the arguments make no sense, or name what is not there
  3    a broker uses the directory: stop it, or verify a snapshot of the filesystem; it looks after its own files itself
  5    something could not be read, and nothing else is wrong
";

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What was looked at, and what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    /// Findings that cost records.
    pub damaged: u64,
    torn: u64,
    gaps: u64,
    hints: u64,
    kept: u64,
    /// What could not be read.
    pub unread: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in [
            ("partitions", self.partitions),
            ("segments", self.segments),
            ("batches", self.batches),
            ("records", self.records),
            ("bytes", self.bytes),
            ("damaged", self.damaged),
            ("torn", self.torn),
            ("gaps", self.gaps),
            ("hints", self.hints),
            ("kept", self.kept),
            ("unread", self.unread),
        ] {
            write!(f, " {name}={figure}")?;
        }
        Ok(())
    }
}

/// Verifies the partitions of `data` that `wanted` names, each by its topic or as `TOPIC-PARTITION`; all if it names
/// none. The catalog is always among them, for it says what the others ought to be.
///
/// # Errors
/// A broker uses the directory (`WouldBlock`), it is none of a broker's or `wanted` names what is not there
/// (`NotFound`), or `out` takes no more.
pub fn run(data: &Path, wanted: &[String], out: &mut dyn Write) -> Result<Figures> {
    let _lock = lock(data)?;
    let all = partitions(data)?;
    let chosen = choose(&all, wanted)?;
    let mut verify = Verify {
        data,
        out,
        figures: Figures::default(),
        eyes: Eyes::new(),
        progress: Progress::new(data, &chosen),
        clean: data.join(CLEAN_SHUTDOWN).exists(),
        synced: Offsets::new(),
        written: Ok(()),
    };
    verify.small_state();
    for name in &chosen {
        verify.partition(name);
    }
    if wanted.is_empty() {
        verify.missing(&all);
    }
    verify.figures.batches = verify.eyes.batches;
    verify.figures.records = verify.eyes.records;
    let figures = verify.figures;
    verify.line(&format!("verify:{figures}"));
    verify.written.context(|| "printing".into())?;
    Ok(figures)
}

/// No broker starts while it is held. A directory without the file was never a broker's of Ottla's.
fn lock(data: &Path) -> Result<Option<File>> {
    let path = data.join(".lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(|| format!("opening {}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let advice = "stop it, or verify a snapshot of the filesystem";
            Err(io::Error::new(ErrorKind::WouldBlock, advice))
                .context(|| format!("a broker uses {}", data.display()))
        }
        Err(TryLockError::Error(e)) => Err(e).context(|| format!("locking {}", path.display())),
    }
}

/// The names of all partitions' directories, the catalog's first.
fn partitions(data: &Path) -> Result<Vec<String>> {
    let reading = || format!("reading {}", data.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(data).context(reading)? {
        let entry = entry.context(reading)?;
        let name = entry.file_name().into_string().ok();
        names.extend(name.filter(|name| partition_of(name).is_some() && entry.path().is_dir()));
    }
    if names.is_empty() && !data.join(META_PROPERTIES).exists() {
        let what = "it is no broker's data directory";
        return Err(io::Error::new(ErrorKind::NotFound, what))
            .context(|| data.display().to_string());
    }
    names.sort_by_key(|name| {
        (
            !is_catalog(name),
            partition_of(name).map(|(t, n)| (t.to_owned(), n)),
        )
    });
    Ok(names)
}

fn is_catalog(name: &str) -> bool {
    partition_of(name).is_some_and(|(topic, _)| topic == METADATA_TOPIC)
}

fn choose(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    let names = |name: &str, word: &String| {
        name == word || partition_of(name).is_some_and(|(topic, _)| topic == word)
    };
    if let Some(word) = wanted
        .iter()
        .find(|word| !all.iter().any(|name| names(name, word)))
    {
        let what = "there is no such topic or partition";
        return Err(io::Error::new(ErrorKind::NotFound, what)).context(|| format!("{word:?}"));
    }
    let is_chosen = |name: &&String| {
        wanted.is_empty() || is_catalog(name) || wanted.iter().any(|word| names(name, word))
    };
    Ok(all.iter().filter(is_chosen).cloned().collect())
}

struct Verify<'a> {
    data: &'a Path,
    out: &'a mut dyn Write,
    figures: Figures,
    eyes: Eyes,
    progress: Progress,
    /// The last stop was clean: nothing is torn.
    clean: bool,
    /// The recovery points.
    synced: Offsets,
    written: io::Result<()>,
}

impl Verify<'_> {
    fn line(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = writeln!(self.out, "{line}");
        }
    }

    /// One finding: its class, the partition, the offsets, where, and what.
    fn tell(
        &mut self,
        class: Class,
        name: &str,
        offsets: Option<Range<i64>>,
        at: &str,
        what: &str,
    ) {
        let (word, figure) = match class {
            Class::Damaged => ("damaged", &mut self.figures.damaged),
            Class::Torn => ("torn", &mut self.figures.torn),
            Class::Gap => ("gap", &mut self.figures.gaps),
            Class::Hint => ("hint", &mut self.figures.hints),
            Class::Kept => ("kept", &mut self.figures.kept),
            Class::Unread => ("unread", &mut self.figures.unread),
        };
        *figure += 1;
        let offsets = match offsets {
            Some(Range {
                start,
                end: i64::MAX,
            }) => format!("{start}.."),
            Some(Range { start, end }) => format!("{start}..{end}"),
            None => "-".into(),
        };
        self.line(&format!("{word} {name} {offsets} {at}: {what}"));
    }

    fn unread(&mut self, name: &str, error: &Error) {
        self.tell(Class::Unread, name, None, "-", &error.to_string());
    }

    fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.data).unwrap_or(path);
        path.display().to_string()
    }

    /// The files beside the partitions' directories.
    fn small_state(&mut self) {
        for (name, is_whole) in SMALL_STATE {
            let path = self.data.join(name);
            match fs::read(&path).map(String::from_utf8) {
                Ok(Ok(text)) if is_whole(&text) => {}
                Ok(_) => self.tell(Class::Hint, "-", None, name, "garbled"),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => self.unread("-", &Error::new(format!("reading {name}: {e}"))),
            }
        }
        match checkpoint::read_offsets(&self.data.join(RECOVERY_POINTS)) {
            Ok(points) => self.synced = points,
            Err(error) => self.unread("-", &error),
        }
    }

    fn partition(&mut self, name: &str) {
        let Some((topic, index)) = partition_of(name) else {
            return;
        };
        let dir = self.data.join(name);
        self.figures.partitions += 1;
        let compacted = self.eyes.is_compacted(topic);
        let (eyes, progress) = (&mut self.eyes, &mut self.progress);
        let mut findings = Vec::new();
        let looked = audit::directory(
            &dir,
            compacted,
            &mut |bytes| progress.add(name, bytes),
            &mut |subject, position, header| eyes.look(topic, subject, position, header),
            |finding| findings.push(finding),
        );
        let synced = self
            .synced
            .get(&(topic.into(), index))
            .copied()
            .unwrap_or(0);
        for finding in &findings {
            self.tell_finding(name, &dir, finding, synced);
        }
        match looked {
            Ok(outline) => {
                self.figures.segments += outline.segments;
                self.figures.bytes += outline.bytes;
                if outline.end < synced {
                    let what = "were synced, and are not there";
                    let lost = Some(outline.end..synced);
                    self.tell(Class::Damaged, name, lost, name, what);
                }
            }
            Err(error) => self.unread(name, &error),
        }
        self.kept(name, &dir);
    }

    fn tell_finding(&mut self, name: &str, dir: &Path, finding: &Finding, synced: i64) {
        let torn = |from: i64| !self.clean && from >= synced && is_at_the_end(dir, finding);
        let bad = "no batch, or one whose CRC is wrong";
        let (class, offsets, what) = match &finding.kind {
            Kind::Batches(lost) if torn(lost.start) => (Class::Torn, Some(lost.clone()), bad),
            Kind::Batches(lost) => (Class::Damaged, Some(lost.clone()), bad),
            Kind::Tail(from) if torn(*from) => (Class::Torn, Some(*from..i64::MAX), bad),
            Kind::Tail(from) => (Class::Damaged, Some(*from..i64::MAX), bad),
            Kind::Records(offsets, what) => (Class::Damaged, Some(offsets.clone()), &**what),
            Kind::Gap(lost) => (Class::Gap, Some(lost.clone()), "lost before"),
            Kind::Hint(what) => (Class::Hint, None, *what),
            Kind::State => (Class::Hint, None, "garbled"),
            Kind::Format(_) => (
                Class::Unread,
                None,
                "messages of a format before v2, from here on",
            ),
        };
        let Range { start, end } = finding.bytes;
        let at = format!("{}:{start}..{end}", self.relative(&finding.path));
        self.tell(class, name, offsets, &at, what);
    }

    /// What recovery set aside.
    fn kept(&mut self, name: &str, dir: &Path) {
        for (class, suffix) in [("torn", ".torn"), ("rotten", ".quarantine")] {
            for path in files(dir, suffix) {
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let at = format!("{}:0..{bytes}", self.relative(&path));
                let what = format!("{class} bytes that an earlier start set aside");
                self.tell(Class::Kept, name, None, &at, &what);
            }
        }
    }

    /// Partitions that the catalog names, whose directories are gone.
    fn missing(&mut self, all: &[String]) {
        let topics = std::mem::take(&mut self.eyes.state.topics);
        let names = topics.iter().flat_map(|(topic, state)| {
            (0..state.leader_epochs.len() as i32).map(move |index| (topic.clone(), index))
        });
        for (topic, index) in names {
            let name = format!("{topic}-{index}");
            let end = self.synced.get(&(topic, index)).copied().unwrap_or(0);
            if end > 0 && !all.contains(&name) {
                self.tell(
                    Class::Damaged,
                    &name,
                    Some(0..end),
                    &name,
                    "the directory is gone",
                );
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Class {
    Damaged,
    Torn,
    Gap,
    Hint,
    Kept,
    Unread,
}

/// A file's name, and whether a text is a whole one.
type SmallState = (&'static str, fn(&str) -> bool);

const SMALL_STATE: [SmallState; 6] = [
    (META_PROPERTIES, |text| {
        checkpoint::parse_meta_properties(text).is_some()
    }),
    (RECOVERY_POINTS, are_offsets),
    (LOG_STARTS, are_offsets),
    (CLEANER_OFFSETS, are_offsets),
    (SCRUB_TIMES, are_offsets),
    (BROKER_TIME, |text| parse_broker_time(text).is_some()),
];

fn are_offsets(text: &str) -> bool {
    checkpoint::parse_offsets(text).is_some()
}

/// Whether a finding lies in the last segment, no further from its end than was ever unsynced (P5's T).
fn is_at_the_end(dir: &Path, finding: &Finding) -> bool {
    let bytes = fs::metadata(&finding.path).map_or(0, |metadata| metadata.len());
    files(dir, ".log").last() == Some(&finding.path)
        && bytes.saturating_sub(finding.bytes.start) <= TURN_BYTES_PER_PARTITION_MAX
}

/// The files of a directory whose names end so, in order.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_named = |path: &PathBuf| path.to_str().is_some_and(|name| name.ends_with(suffix));
    let mut named: Vec<PathBuf> = paths.filter(is_named).collect();
    named.sort();
    named
}

/// Says now and then how far the look is.
struct Progress {
    read: u64,
    all: u64,
    said: Instant,
}

impl Progress {
    fn new(data: &Path, names: &[String]) -> Progress {
        let logs = names
            .iter()
            .flat_map(|name| files(&data.join(name), ".log"));
        let bytes = logs.map(|log| fs::metadata(log).map_or(0, |metadata| metadata.len()));
        Progress {
            read: 0,
            all: bytes.sum(),
            said: Instant::now(),
        }
    }

    fn add(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.read += bytes;
        if self.said.elapsed() >= PROGRESS_EVERY {
            self.said = Instant::now();
            let mib = |bytes: u64| bytes >> 20;
            let (read, all) = (mib(self.read), mib(self.all));
            error::say(&format!("ottla: {read} of {all} MiB read, now {name}"));
        }
        Ok(())
    }
}
