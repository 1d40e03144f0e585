//! A memory cgroup for one process: version 2 where this process may make one, else version 1.
//!
//! Owns: a directory of the cgroup filesystem, removed when dropped. Nothing is asked of a service manager: a cgroup is
//! made below this process's own, or below one of those above it, whichever lets itself be limited.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A memory cgroup with a limit.
pub struct Cgroup {
    dir: PathBuf,
    version: u8,
}

impl Cgroup {
    /// A cgroup of at most `bytes`, without swap; or why there is none.
    pub fn new(bytes: u64) -> Result<Cgroup, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let mut why = "no cgroup filesystem that accounts for memory is mounted".to_owned();
        for (version, mount) in mounts.lines().filter_map(memory_mount) {
            let is_own = |line: &&str| match version {
                2 => line.starts_with("0::"),
                _ => line.contains(":memory:") || line.contains(":memory,"),
            };
            let line = own.lines().find(is_own).unwrap_or("::/");
            let path = line.splitn(3, ':').nth(2).unwrap_or("/");
            let below = mount.join(path.trim_start_matches('/'));
            for parent in below.ancestors().filter(|dir| dir.starts_with(&mount)) {
                match Cgroup::below(parent, version, bytes) {
                    Ok(cgroup) => return Ok(cgroup),
                    Err(error) => why = format!("{}: {error}", parent.display()),
                }
            }
        }
        Err(why)
    }

    fn below(parent: &Path, version: u8, bytes: u64) -> std::io::Result<Cgroup> {
        let dir = parent.join(format!("ottla-ceiling-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let cgroup = Cgroup { dir, version };
        let (limit, swap, no_swap) = match version {
            2 => ("memory.max", "memory.swap.max", 0),
            _ => (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                bytes,
            ),
        };
        // Not made by a write: on a parent that hands no memory on, the file is missing.
        fs::OpenOptions::new()
            .write(true)
            .open(cgroup.dir.join(limit))?;
        fs::write(cgroup.dir.join(limit), bytes.to_string())?;
        // A kernel without swap accounting has no such file.
        let _ = fs::write(cgroup.dir.join(swap), no_swap.to_string());
        Ok(cgroup)
    }

    /// Makes `command` begin its life in here.
    pub fn enclose(&self, command: &mut Command) {
        let mut enclosed = Command::new("sh");
        enclosed.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        enclosed.arg(self.dir.join("cgroup.procs"));
        enclosed.arg(command.get_program()).args(command.get_args());
        enclosed.stdin(std::process::Stdio::null());
        enclosed.stderr(std::process::Stdio::piped());
        *command = enclosed;
    }

    /// What the kernel could not take back at once, in bytes: the process's own memory, the kernel's for it, and that
    /// of its sockets; and not the page cache.
    pub fn unreclaimable_bytes(&self) -> u64 {
        let stat = self.read("memory.stat");
        let of = |name| number(&stat, name).unwrap_or(0);
        match self.version {
            2 => {
                // Before Linux 5.18 the kernel's share is not summed up.
                let parts = || of("kernel_stack ") + of("pagetables ") + of("slab_unreclaimable ");
                let kernel = number(&stat, "kernel ").map(|all| all - of("slab_reclaimable "));
                of("anon ") + of("sock ") + kernel.unwrap_or_else(parts)
            }
            _ => {
                let whole = |name: &str| self.read(name).trim().parse().unwrap_or(0);
                of("rss ")
                    + whole("memory.kmem.usage_in_bytes")
                    + whole("memory.kmem.tcp.usage_in_bytes")
            }
        }
    }

    /// How often a process in here was killed for its memory.
    pub fn kills(&self) -> u64 {
        let events = match self.version {
            2 => "memory.events",
            _ => "memory.oom_control",
        };
        number(&self.read(events), "oom_kill ").unwrap_or(0)
    }

    /// What it is, for people.
    pub fn name(&self) -> String {
        format!("cgroup v{} {}", self.version, self.dir.display())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().parse().ok()
}

/// A line of /proc/self/mounts that can account for memory: the version, and where it is.
fn memory_mount(line: &str) -> Option<(u8, PathBuf)> {
    let mut words = line.split(' ');
    let (_, dir, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
    match kind {
        "cgroup2" => Some((2, dir.into())),
        "cgroup" if options.split(',').any(|option| option == "memory") => Some((1, dir.into())),
        _ => None,
    }
}
