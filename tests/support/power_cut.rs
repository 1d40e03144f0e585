//! What a disk holds after a power cut: a directory as it was, and then only those changes that a sync made durable.
//!
//! The strictest disk that POSIX allows: without its sync no byte, no length and no directory entry survives; an
//! entry needs a sync of its directory, whatever was synced of the file. A failed sync loses what it covered for
//! good: later syncs of the same file succeed and bring nothing back (Linux marks the pages clean). The log of
//! changes comes from `slow_sync.c`, which describes its format.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

type Id = usize;

/// The durable and the live state of everything under one directory.
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// What a sync that has begun will make durable, by thread and node.
    syncing: HashMap<(u64, Id), Syncing>,
}

enum Node {
    File {
        durable: Vec<u8>,
        /// Changes since, oldest first, numbered so that a sync takes only what came before it.
        pending: Vec<Change>,
    },
    Directory {
        durable: BTreeMap<String, Id>,
        live: BTreeMap<String, Id>,
    },
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

enum Syncing {
    /// The first so many pending changes.
    File(usize),
    Directory(BTreeMap<String, Id>),
}

struct Record<'a> {
    op: u32,
    offset: u64,
    path: &'a str,
    data: &'a [u8],
}

impl Disk {
    /// Takes all that is under `root` now as durable.
    pub fn load(root: &Path) -> io::Result<Disk> {
        let mut disk = Disk {
            root: root.canonicalize()?,
            nodes: vec![Node::directory()],
            syncing: HashMap::new(),
        };
        disk.load_into(0, root)?;
        Ok(disk)
    }

    fn load_into(&mut self, parent: Id, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let node = match is_dir {
                true => Node::directory(),
                false => Node::File {
                    durable: fs::read(entry.path())?,
                    pending: Vec::new(),
                },
            };
            let id = self.add(node);
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            if let Node::Directory { durable, live } = &mut self.nodes[parent] {
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
        self.write_node(0, target, &mut || false)
    }

    /// As [`Disk::write_to`], of a disk that also kept some of what was not synced: of each unsynced write the pages
    /// for which `kept` says so, and of each directory the old entries or the new ones.
    pub fn write_some_to(&self, target: &Path, mut kept: impl FnMut() -> bool) -> io::Result<()> {
        self.write_node(0, target, &mut kept)
    }

    fn write_node(&self, id: Id, path: &Path, kept: &mut dyn FnMut() -> bool) -> io::Result<()> {
        match &self.nodes[id] {
            Node::File { durable, pending } => {
                let mut bytes = durable.clone();
                let pages = pending.iter().flat_map(|change| change.pages());
                pages
                    .filter(|_| kept())
                    .for_each(|page| page.apply(&mut bytes));
                fs::write(path, bytes)
            }
            Node::Directory { durable, live } => {
                fs::create_dir_all(path)?;
                let names = if kept() { live } else { durable };
                for (name, &id) in names {
                    self.write_node(id, &path.join(name), kept)?;
                }
                Ok(())
            }
        }
    }

    fn apply(&mut self, record: &Record) {
        let offset = record.offset as usize;
        match record.op {
            1 => self.create(record.path, Node::file()),
            2 => self.change(record.path, Change::Write(offset, record.data.to_vec())),
            3 => self.change(record.path, Change::Truncate(offset)),
            4 => self.sync_begins(record.path, record.offset),
            5 => self.sync_ends(record.path, record.offset, true),
            6 => self.sync_ends(record.path, record.offset, false),
            7 => {
                let to = std::str::from_utf8(record.data).expect("a path in UTF-8");
                if let Some(id) = self
                    .entries(record.path)
                    .and_then(|(live, n)| live.remove(n))
                {
                    let (live, name) = self.entries(to).expect("a rename into a directory");
                    live.insert(name.into(), id);
                }
            }
            8 => {
                if let Some((live, name)) = self.entries(record.path) {
                    live.remove(name);
                }
            }
            9 => self.create(record.path, Node::directory()),
            op => panic!("the log has an op {op}"),
        }
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn create(&mut self, path: &str, node: Node) {
        let id = self.nodes.len();
        let (live, name) = self.entries(path).expect("a new entry in a directory");
        if !live.contains_key(name) {
            live.insert(name.into(), id);
            self.nodes.push(node);
        }
    }

    fn change(&mut self, path: &str, change: Change) {
        let id = self.find(path);
        match id.map(|id| &mut self.nodes[id]) {
            Some(Node::File { pending, .. }) => pending.push(change),
            _ => panic!("{path} was changed, but never created"),
        }
    }

    fn sync_begins(&mut self, path: &str, thread: u64) {
        if let Some(id) = self.find(path) {
            let syncing = match &self.nodes[id] {
                Node::File { pending, .. } => Syncing::File(pending.len()),
                Node::Directory { live, .. } => Syncing::Directory(live.clone()),
            };
            self.syncing.insert((thread, id), syncing);
        }
    }

    fn sync_ends(&mut self, path: &str, thread: u64, kept: bool) {
        let Some(id) = self.find(path) else { return };
        match (self.syncing.remove(&(thread, id)), &mut self.nodes[id]) {
            (Some(Syncing::File(count)), Node::File { durable, pending }) => {
                // Another thread's sync of the same file may have taken some of them.
                let count = count.min(pending.len());
                for change in pending.drain(..count).filter(|_| kept) {
                    change.apply(durable);
                }
            }
            (Some(Syncing::Directory(names)), Node::Directory { durable, .. }) if kept => {
                *durable = names;
            }
            _ => {}
        }
    }

    /// The live node at a path.
    fn find(&mut self, path: &str) -> Option<Id> {
        if Path::new(path) == self.root {
            return Some(0);
        }
        let (live, name) = self.entries(path)?;
        live.get(name).copied()
    }

    /// The live entries of a path's directory, and its name in there.
    fn entries<'a>(&mut self, path: &'a str) -> Option<(&mut BTreeMap<String, Id>, &'a str)> {
        let inside = Path::new(path).strip_prefix(&self.root).ok()?.to_str()?;
        let (directories, name) = inside.rsplit_once('/').unwrap_or(("", inside));
        let mut id = 0;
        for part in directories.split('/').filter(|part| !part.is_empty()) {
            match &self.nodes[id] {
                Node::Directory { live, .. } => id = *live.get(part)?,
                Node::File { .. } => return None,
            }
        }
        let name = &path[path.len() - name.len()..];
        match &mut self.nodes[id] {
            Node::Directory { live, .. } => Some((live, name)),
            Node::File { .. } => None,
        }
    }
}

impl Node {
    fn file() -> Node {
        Node::File {
            durable: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn directory() -> Node {
        Node::Directory {
            durable: BTreeMap::new(),
            live: BTreeMap::new(),
        }
    }
}

impl Change {
    /// The change in the pieces in which a disk may keep it.
    fn pages(&self) -> Vec<Change> {
        const PAGE: usize = 4096;
        let Change::Write(at, data) = self else {
            return vec![self.clone()];
        };
        let (mut at, mut rest, mut pages) = (*at, &data[..], Vec::new());
        while !rest.is_empty() {
            let (page, more) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            pages.push(Change::Write(at, page.to_vec()));
            (at, rest) = (at + page.len(), more);
        }
        pages
    }

    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Change::Truncate(len) => bytes.resize(len, 0),
            Change::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
        }
    }
}

impl<'a> Record<'a> {
    /// Takes the first record; none when the log ends, perhaps within one that a kill cut short.
    fn next(rest: &mut &'a [u8]) -> Option<Record<'a>> {
        let number = |at: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(rest.get(at..at + len)?);
            Some(u64::from_le_bytes(bytes))
        };
        let (op, path_len) = (number(0, 4)? as u32, number(4, 4)? as usize);
        let (offset, data_len) = (number(8, 8)?, number(16, 8)? as usize);
        let path = rest.get(24..24 + path_len)?;
        let data = rest.get(24 + path_len..24 + path_len + data_len)?;
        *rest = &rest[24 + path_len + data_len..];
        Some(Record {
            op,
            offset,
            path: std::str::from_utf8(path).expect("a path in UTF-8"),
            data,
        })
    }
}
