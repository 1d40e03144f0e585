//! What a disk holds after a power cut: a directory as it was, the changes that a sync made durable, and of the rest
//! whatever the disk happened to keep.
//!
//! Which of the unsynced changes a disk may keep, and which [`Keep`] chooses among:
//! - A file's data survives by sectors of 512 bytes. What one holds is what the program's file held there at some
//!   moment since the sync, another moment for each sector.
//! - A file's length is that of some such moment too, independent of the data: bytes that the length reaches and no
//!   sector brought read as zeros; what lies beyond it is gone.
//! - A directory's entries are changed one by one, and each change (a file made, renamed, removed) is kept or not,
//!   whatever became of other files, of other directories, and of the data. But a file's own changes are kept in their
//!   order, and a rename is one change: no file ever has two names, or loses the only one that a sync gave it.
//!
//! What a sync covered is there in any case: data and length of a file, or the entries of a directory. A file's entry
//! needs a sync of its directory, whatever was synced of the file. A failed sync loses what it covered for good: later
//! syncs of the same file succeed and bring nothing back (Linux marks the pages clean). The log of changes comes from
//! `slow_sync.c`, which describes its format.

#[path = "changes.rs"]
mod changes;

#[allow(unused_imports)] // not all tests cut everywhere
pub use changes::boundaries;

use changes::Record;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
type Id = usize;
/// The number of a change, from the first on.
type Moment = usize;

/// What a disk keeps of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Nothing: the strictest disk.
    Nothing,
    /// Everything, as if the program alone had died.
    Everything,
    /// All up to some moment, and part of the write that was under way then.
    UpToAMoment,
    /// All names and lengths, and of each file all of the data or none.
    Lengths,
    /// Any part: of each file any sectors, of each directory any changes.
    AnyPart,
}

impl Keep {
    /// All but the strictest.
    const SOME: [Keep; 4] = {
        use Keep::*;
        [Everything, UpToAMoment, Lengths, AnyPart]
    };
}

/// The durable and the live state of everything under one directory.
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    now: Moment,
    /// When the syncs that are under way began, by thread and node.
    syncing: HashMap<(u64, Id), Moment>,
    /// Every path that was recorded to be made.
    known: HashSet<String>,
}

enum Node {
    File {
        durable: Vec<u8>,
        /// Changes since, oldest first.
        pending: Vec<(Moment, Change)>,
    },
    Directory {
        durable: BTreeMap<String, Id>,
        /// Ditto.
        pending: Vec<(Moment, Entry)>,
        live: BTreeMap<String, Id>,
    },
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// A change of the entry of one file or directory.
struct Entry {
    id: Id,
    from: Option<String>,
    to: Option<String>,
}

impl Disk {
    /// Nothing is under `root`, which is absolute and without symlinks, yet.
    pub fn empty(root: PathBuf) -> Disk {
        Disk {
            root,
            nodes: vec![Node::directory()],
            now: 0,
            syncing: HashMap::new(),
            known: HashSet::new(),
        }
    }

    /// Takes all that is under `root` now as durable.
    pub fn load(root: &Path) -> io::Result<Disk> {
        let mut disk = Disk::empty(root.canonicalize()?);
        disk.load_into(0, root)?;
        Ok(disk)
    }

    fn load_into(&mut self, parent: Id, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let id = self.nodes.len();
            self.nodes.push(match is_dir {
                true => Node::directory(),
                false => Node::file(fs::read(entry.path())?),
            });
            let name = entry.file_name().into_string().expect("in UTF-8");
            if let Node::Directory { durable, live, .. } = &mut self.nodes[parent] {
                durable.insert(name.clone(), id);
                live.insert(name, id);
            }
            if is_dir {
                self.load_into(id, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Applies the changes of one run of the program.
    pub fn replay(&mut self, log: &Path) -> io::Result<()> {
        let bytes = fs::read(log)?;
        let mut rest = &bytes[..];
        while self.step(&mut rest) {}
        self.end_run();
        Ok(())
    }

    /// Applies the next change of a run, and takes it off `rest`; says whether there was one.
    pub fn step(&mut self, rest: &mut &[u8]) -> bool {
        let record = Record::next(rest);
        record.inspect(|record| self.apply(record)).is_some()
    }

    /// The program ended: a sync without an end proves nothing.
    pub fn end_run(&mut self) {
        self.syncing.clear();
    }

    /// Writes what is durable into `target`, which is to be empty or absent.
    pub fn write_to(&self, target: &Path) -> io::Result<()> {
        self.write_kept_to(target, Keep::Nothing, &mut StdRng::seed_from_u64(0))
    }

    /// As [`Disk::write_to`], of a disk that also kept some of what was not synced.
    pub fn write_some_to(&self, target: &Path, rng: &mut StdRng) -> io::Result<()> {
        let keep = *Keep::SOME.choose(rng).expect("there are some");
        self.write_kept_to(target, keep, rng)
    }

    /// As [`Disk::write_to`], of a disk that also kept what `keep` says.
    pub fn write_kept_to(&self, target: &Path, keep: Keep, rng: &mut StdRng) -> io::Result<()> {
        let moments = self.nodes.iter().filter_map(|node| match node {
            Node::File { pending, .. } => Some(pending.first()?.0),
            Node::Directory { pending, .. } => Some(pending.first()?.0),
        });
        let oldest = moments.min().unwrap_or(self.now);
        let moment = rng.random_range(oldest..=self.now);
        self.write_node(0, target, &mut Image { keep, moment, rng })
    }

    fn write_node(&self, id: Id, path: &Path, image: &mut Image<'_>) -> io::Result<()> {
        match &self.nodes[id] {
            Node::File { durable, pending } => fs::write(path, image.bytes(durable, pending)),
            Node::Directory {
                durable, pending, ..
            } => {
                fs::create_dir_all(path)?;
                for (name, &id) in image.names(durable, pending).iter() {
                    self.write_node(id, &path.join(name), image)?;
                }
                Ok(())
            }
        }
    }

    fn apply(&mut self, record: &Record) {
        self.now += 1;
        let offset = record.offset as usize;
        match record.op {
            1 => self.create(record.path, Node::file(Vec::new())),
            2 => self.change(record.path, Change::Write(offset, record.data.to_vec())),
            3 => self.change(record.path, Change::Truncate(offset)),
            4 => {
                let is_known = self.known.contains(record.path);
                if !is_known
                    && self.find(record.path).is_none()
                    && self.parent(record.path).is_some()
                {
                    // It was made when the program was killed, just before that was recorded.
                    self.create(record.path, Node::file(Vec::new()));
                }
                if let Some(id) = self.find(record.path) {
                    self.syncing.insert((record.offset, id), self.now);
                }
            }
            5 => self.sync_ends(record.path, record.offset, true),
            6 => self.sync_ends(record.path, record.offset, false),
            7 => {
                let to = std::str::from_utf8(record.data).expect("a path in UTF-8");
                self.rename(record.path, to);
            }
            8 => self.remove(record.path),
            9 => self.create(record.path, Node::directory()),
            op => panic!("the log has an op {op}"),
        }
    }

    fn create(&mut self, path: &str, node: Node) {
        self.known.insert(path.to_owned());
        let id = self.nodes.len();
        let (parent, name) = self.parent(path).expect("a new entry in a directory");
        if !self.live(parent).contains_key(name) {
            self.nodes.push(node);
            self.enter(parent, id, None, Some(name));
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.known.insert(to.to_owned());
        let Some((parent, old)) = self.parent(from) else {
            return;
        };
        if let Some(&id) = self.live(parent).get(old) {
            let (target, new) = self.parent(to).expect("a rename into a directory");
            assert_eq!(parent, target, "{from} leaves its directory: not modelled");
            self.enter(parent, id, Some(old), Some(new));
        }
    }

    fn remove(&mut self, path: &str) {
        if let Some((parent, name)) = self.parent(path)
            && let Some(&id) = self.live(parent).get(name)
        {
            self.enter(parent, id, Some(name), None);
        }
    }

    fn enter(&mut self, parent: Id, id: Id, from: Option<&str>, to: Option<&str>) {
        let [from, to] = [from, to].map(|name| name.map(str::to_owned));
        let entry = Entry { id, from, to };
        if let Node::Directory { pending, live, .. } = &mut self.nodes[parent] {
            entry.apply(live);
            pending.push((self.now, entry));
        }
    }

    fn change(&mut self, path: &str, change: Change) {
        let id = self.find(path);
        match id.map(|id| &mut self.nodes[id]) {
            Some(Node::File { pending, .. }) => pending.push((self.now, change)),
            _ => panic!("{path} was changed, but never created"),
        }
    }

    fn sync_ends(&mut self, path: &str, thread: u64, kept: bool) {
        let Some(id) = self.find(path) else { return };
        let began = self.syncing.remove(&(thread, id)).unwrap_or(0);
        match &mut self.nodes[id] {
            Node::File { durable, pending } => {
                let count = pending.partition_point(|(moment, _)| *moment < began);
                for (_, change) in pending.drain(..count).filter(|_| kept) {
                    change.apply(durable);
                }
            }
            // What a failed sync of a directory leaves may still come, or not.
            Node::Directory { .. } if !kept => {}
            Node::Directory {
                durable, pending, ..
            } => {
                let count = pending.partition_point(|(moment, _)| *moment < began);
                for (_, entry) in pending.drain(..count) {
                    entry.apply(durable);
                }
            }
        }
    }

    /// The live node at a path.
    fn find(&self, path: &str) -> Option<Id> {
        if Path::new(path) == self.root {
            return Some(0);
        }
        let (parent, name) = self.parent(path)?;
        self.live(parent).get(name).copied()
    }

    /// The live directory in which a path stands, and its name in there.
    fn parent<'a>(&self, path: &'a str) -> Option<(Id, &'a str)> {
        let inside = Path::new(path).strip_prefix(&self.root).ok()?.to_str()?;
        let (directories, name) = inside.rsplit_once('/').unwrap_or(("", inside));
        let mut id = 0;
        for part in directories.split('/').filter(|part| !part.is_empty()) {
            id = *self.live(id).get(part)?;
        }
        Some((id, &path[path.len() - name.len()..]))
    }

    /// The live entries of a directory; a file has none.
    fn live(&self, id: Id) -> &BTreeMap<String, Id> {
        static NONE: BTreeMap<String, Id> = BTreeMap::new();
        match &self.nodes[id] {
            Node::Directory { live, .. } => live,
            Node::File { .. } => &NONE,
        }
    }
}

impl Node {
    fn file(durable: Vec<u8>) -> Node {
        Node::File {
            durable,
            pending: Vec::new(),
        }
    }

    fn directory() -> Node {
        Node::Directory {
            durable: BTreeMap::new(),
            pending: Vec::new(),
            live: BTreeMap::new(),
        }
    }
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Change::Truncate(len) => bytes.resize(len, 0),
            Change::Write(at, data) => put(bytes, at, &data),
        }
    }

    /// The file's length after it.
    fn len_after(&self, before: usize) -> usize {
        match self {
            Change::Truncate(len) => *len,
            Change::Write(at, data) => before.max(at + data.len()),
        }
    }
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.id)
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.id);
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// One disk that a cut may leave.
struct Image<'a> {
    keep: Keep,
    /// That of [`Keep::UpToAMoment`].
    moment: Moment,
    rng: &'a mut StdRng,
}

/// How many of a file's pending changes each of its sectors has seen.
enum Seen {
    All(usize),
    /// The sectors below one saw one more.
    Torn(usize, usize),
    /// Each its own number, at most this one.
    Each(usize, HashMap<usize, usize>),
}

impl Seen {
    fn of(&mut self, sector: usize, rng: &mut StdRng) -> usize {
        match self {
            Seen::All(count) => *count,
            Seen::Torn(count, end) => *count + usize::from(sector < *end),
            Seen::Each(most, chosen) => *chosen
                .entry(sector)
                .or_insert_with(|| rng.random_range(0..=*most)),
        }
    }
}

impl Image<'_> {
    fn names<'a>(
        &mut self,
        durable: &'a BTreeMap<String, Id>,
        pending: &[(Moment, Entry)],
    ) -> Cow<'a, BTreeMap<String, Id>> {
        let mut names = Cow::Borrowed(durable);
        let mut lost = HashSet::new();
        let share = [0.1, 0.5, 0.9][self.rng.random_range(0..3)];
        for (moment, entry) in pending {
            let kept = match self.keep {
                Keep::Nothing => false,
                Keep::Everything | Keep::Lengths => true,
                Keep::UpToAMoment => *moment < self.moment,
                Keep::AnyPart => !lost.contains(&entry.id) && self.rng.random_bool(share),
            };
            match kept {
                true => entry.apply(names.to_mut()),
                false => drop(lost.insert(entry.id)),
            }
        }
        names
    }

    fn bytes<'a>(&mut self, durable: &'a [u8], pending: &[(Moment, Change)]) -> Cow<'a, [u8]> {
        if pending.is_empty() || self.keep == Keep::Nothing {
            return Cow::Borrowed(durable);
        }
        let (for_len, mut seen) = self.choose(pending);
        let mut bytes = durable.to_vec();
        let mut len = bytes.len();
        for (number, (_, change)) in pending.iter().enumerate() {
            if number < for_len {
                len = change.len_after(len);
            }
            match change {
                Change::Write(at, data) => {
                    let (mut at, mut rest) = (*at, &data[..]);
                    while !rest.is_empty() {
                        let (piece, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                        if seen.of(at / SECTOR, self.rng) > number {
                            put(&mut bytes, at, piece);
                        }
                        (at, rest) = (at + piece.len(), more);
                    }
                }
                Change::Truncate(to) if number < for_len => bytes.truncate(*to),
                // The rest of the last sector was zeroed in memory, whatever the length on the disk.
                Change::Truncate(to) if seen.of(to / SECTOR, self.rng) > number => {
                    let end = to.next_multiple_of(SECTOR).min(bytes.len());
                    bytes.get_mut(*to..end).unwrap_or_default().fill(0);
                }
                Change::Truncate(_) => {}
            }
        }
        bytes.resize(len, 0);
        Cow::Owned(bytes)
    }

    /// How many of the changes the length has seen, and each sector.
    fn choose(&mut self, pending: &[(Moment, Change)]) -> (usize, Seen) {
        let all = pending.len();
        match self.keep {
            Keep::Nothing => (0, Seen::All(0)),
            Keep::Everything => (all, Seen::All(all)),
            Keep::Lengths => (all, Seen::All(if self.rng.random() { all } else { 0 })),
            Keep::UpToAMoment => {
                let count = pending.partition_point(|(moment, _)| *moment < self.moment);
                match pending.get(count) {
                    Some((moment, Change::Write(at, data))) if *moment == self.moment => {
                        let end = self.rng.random_range(*at..=at + data.len()) / SECTOR;
                        let for_len = count + usize::from(self.rng.random::<bool>());
                        (for_len, Seen::Torn(count, end))
                    }
                    _ => (count, Seen::All(count)),
                }
            }
            Keep::AnyPart => {
                let some = self.rng.random_range(0..=all);
                let for_len = [0, some, all][self.rng.random_range(0..3)];
                let seen = match self.rng.random_range(0..4) {
                    0 => Seen::All(for_len),
                    1 => Seen::All(self.rng.random_range(0..=all)),
                    _ => Seen::Each(all, HashMap::new()),
                };
                (for_len, seen)
            }
        }
    }
}
