//! The driver's side of `slow_sync.c`: builds it, preloads it, reads its counters and turns its knobs while the
//! program runs. What the library does, and the format of its log, stands at the top of that file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/slow_sync.c");

/// Words of 64 bits in the shared page, in the order of `struct control`.
const WORDS: usize = WORD_CALLS + Kind::ALL.len();
const WORD_SYNC_DELAY_US: usize = 5;
const WORD_ROOM: usize = 6;
const WORD_WALL_MS: usize = 7;
const WORD_BOOT_MS: usize = 8;
const WORD_FAULT_KINDS: usize = 9;
const WORD_FAULT_TURN: usize = 10;
const WORD_FAULT_ERRNO: usize = 11;
const WORD_FAULT_STAYS: usize = 12;
const WORD_FAULTS: usize = 13;
const WORD_CALLS: usize = 14;

/// What may fail, in the order of `enum kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A write beyond a file's end.
    Append,
    /// A write over bytes that are there, which needs no room.
    Overwrite,
    Sync,
    /// `open` that makes a file.
    Create,
    /// Any other `open`, of directories too.
    Open,
    MakeDirectory,
    Rename,
    Unlink,
    Truncate,
    Read,
    /// `sendfile`.
    Send,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Append,
        Kind::Overwrite,
        Kind::Sync,
        Kind::Create,
        Kind::Open,
        Kind::MakeDirectory,
        Kind::Rename,
        Kind::Unlink,
        Kind::Truncate,
        Kind::Read,
        Kind::Send,
    ];
}

/// How calls under the recorded directory fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The kinds of calls that it concerns, counted together.
    pub kinds: Vec<Kind>,
    /// The `errno` that they fail with; 0: they read, write or send but half of what is asked.
    pub errno: i32,
    /// All calls from the first that fails on.
    pub stays: bool,
}

/// One preloaded library with its control page, for any number of runs of a program one after another.
pub struct Shim {
    library: PathBuf,
    control_path: PathBuf,
    control: File,
}

/// What the program did since the control page was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub syncs: u64,
    pub directory_syncs: u64,
    /// Time in real syncs, delay excluded, summed over threads.
    pub sync_time: Duration,
    /// Writes under the recorded directory, calls and bytes.
    pub writes: u64,
    pub write_bytes: u64,
}

impl Shim {
    /// Builds the library into `scratch`, unless it is there and newer than its source, and makes a control page.
    pub fn new(scratch: &Path) -> io::Result<Shim> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let library = scratch.join("slow_sync.so");
        if !is_newer(&library, Path::new(SOURCE)) {
            // Tests build at the same time: each builds its own, and the last rename wins.
            let draft = scratch.join(format!("slow_sync-{unique}.so"));
            let status = Command::new("cc")
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .args([draft.as_os_str(), SOURCE.as_ref()])
                .status()?;
            if !status.success() {
                return Err(io::Error::other(format!("cc {SOURCE}: {status}")));
            }
            fs::rename(&draft, &library)?;
        }
        let control_path = scratch.join(format!("slow_sync-{unique}.control"));
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&control_path)?;
        control.set_len((WORDS * 8) as u64)?;
        Ok(Shim {
            library,
            control_path,
            control,
        })
    }

    /// Preloads the library into the program that `command` will start.
    pub fn attach(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env("OTTLA_SHIM_CONTROL", &self.control_path);
    }

    /// As [`Shim::attach`]; faults concern the files under `directory`, and changes to them are appended to `log`.
    pub fn attach_recording(
        &self,
        command: &mut Command,
        directory: &Path,
        log: &Path,
    ) -> io::Result<()> {
        self.attach(command);
        command.env("OTTLA_SHIM_DIR", directory.canonicalize()?);
        command.env("OTTLA_SHIM_LOG", log);
        Ok(())
    }

    /// As [`Shim::attach_recording`] without a record, and syncs cost nothing: for faults in a process whose disk
    /// stays.
    pub fn attach_faults(&self, command: &mut Command, directory: &Path) -> io::Result<()> {
        self.attach_skipping_syncs(command);
        command.env("OTTLA_SHIM_DIR", directory.canonicalize()?);
        Ok(())
    }

    /// As [`Shim::attach`], for a run whose disk is thrown away: its syncs cost nothing.
    pub fn attach_skipping_syncs(&self, command: &mut Command) {
        self.attach(command);
        command.env("OTTLA_SHIM_SKIP_SYNC", "1");
    }

    /// Makes each sync from now on last this much longer.
    pub fn set_sync_delay(&self, delay: Duration) -> io::Result<()> {
        self.set(WORD_SYNC_DELAY_US, delay.as_micros() as u64)
    }

    /// Lets the `nth` call from now on fail (1: the next; 0: none). Needs [`Shim::attach_recording`].
    pub fn arm(&self, nth: u64, fault: &Fault) -> io::Result<()> {
        self.set(WORD_FAULT_TURN, 0)?;
        let kinds = fault.kinds.iter().map(|kind| 1 << *kind as u64).sum();
        self.set(WORD_FAULT_KINDS, kinds)?;
        self.set(WORD_FAULT_ERRNO, fault.errno as u64)?;
        self.set(WORD_FAULT_STAYS, fault.stays.into())?;
        self.set(WORD_FAULT_TURN, nth)
    }

    /// Nothing fails from now on.
    pub fn disarm(&self) -> io::Result<()> {
        self.set(WORD_FAULT_TURN, 0)
    }

    /// How many calls failed so far.
    pub fn faults(&self) -> io::Result<u64> {
        self.get(WORD_FAULTS)
    }

    /// How many calls of a kind were made under the recorded directory so far.
    pub fn calls(&self, kind: Kind) -> io::Result<u64> {
        self.get(WORD_CALLS + kind as usize)
    }

    /// Lets the `nth` sync from now on fail with EIO (1: the next; 0: none). Needs [`Shim::attach_recording`].
    pub fn fail_sync(&self, nth: u64) -> io::Result<()> {
        self.fail(Kind::Sync, nth)
    }

    /// Lets the `nth` rename from now on fail with EIO (1: the next; 0: none). Needs [`Shim::attach_recording`].
    pub fn fail_rename(&self, nth: u64) -> io::Result<()> {
        self.fail(Kind::Rename, nth)
    }

    fn fail(&self, kind: Kind, nth: u64) -> io::Result<()> {
        const EIO: i32 = 5;
        let fault = Fault {
            kinds: vec![kind],
            errno: EIO,
            stays: false,
        };
        self.arm(nth, &fault)
    }

    /// Fills the disk after this many more bytes (`None`: it has room). Needs [`Shim::attach_recording`].
    pub fn set_room(&self, bytes: Option<u64>) -> io::Result<()> {
        self.set(WORD_ROOM, bytes.map_or(0, |b| b + 1))
    }

    /// Sets CLOCK_REALTIME and CLOCK_BOOTTIME ahead by so many ms; a negative number sets it back.
    pub fn set_clocks(&self, wall_ms: i64, boot_ms: i64) -> io::Result<()> {
        self.set(WORD_WALL_MS, wall_ms as u64)?;
        self.set(WORD_BOOT_MS, boot_ms as u64)
    }

    /// What was counted so far.
    pub fn counts(&self) -> io::Result<Counts> {
        Ok(Counts {
            syncs: self.get(0)?,
            directory_syncs: self.get(1)?,
            sync_time: Duration::from_nanos(self.get(2)?),
            writes: self.get(3)?,
            write_bytes: self.get(4)?,
        })
    }

    // The library maps the file shared, so plain reads and writes of it are seen at once.
    fn get(&self, word: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn set(&self, word: usize, value: u64) -> io::Result<()> {
        self.control
            .write_all_at(&value.to_ne_bytes(), word as u64 * 8)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.control_path);
    }
}

fn is_newer(made: &Path, source: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|m| m.modified());
    matches!((time(made), time(source)), (Ok(made), Ok(source)) if made > source)
}
