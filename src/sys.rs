//! The operating system: the only `unsafe` and the only `cfg(target_os)` in the house.
//!
//! Every function is a thin, total wrapper of one system call (or of a loop around one that may be short), and
//! returns the call's own error. Nothing here decides anything. Sync and truncation are here so that a tool can
//! interpose on one place; who may *call* them is the list in `tests/tidy.rs`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// One `sendfile` call moves at most this many bytes (sendfile(2)).
const SEND_FILE_BYTES_MAX: usize = 0x7fff_f000;

/// `IOV_MAX` on Linux: the slices one gathered write may have.
const IO_SLICES_MAX: usize = 1024;

fn check(result: libc::ssize_t) -> io::Result<usize> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as usize)
    }
}

fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Moves up to `len` bytes of `file` from `position` to `socket` inside the kernel; returns the bytes moved.
/// Zero means that the file ends at `position`.
pub fn send_file(
    socket: &impl AsRawFd,
    file: &File,
    position: u64,
    len: usize,
) -> io::Result<usize> {
    let mut offset = position as libc::off_t;
    let len = len.min(SEND_FILE_BYTES_MAX);
    // SAFETY: both descriptors are open for the length of the call, and `offset` outlives it.
    check(unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &mut offset, len) })
}

/// Sends up to `bytes.len()` bytes; `more` says that the answer goes on, so that the kernel fills its packets.
pub fn send(socket: &impl AsRawFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    send_with(socket, bytes, if more { libc::MSG_MORE } else { 0 })
}

/// The same without waiting; `WouldBlock` when the socket takes no more.
pub fn send_now(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, libc::MSG_DONTWAIT)
}

fn send_with(socket: &impl AsRawFd, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length are those of a live slice.
    check(unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    })
}

/// Receives at most `limit` bytes to the end of `bytes`, within its capacity, without waiting; `WouldBlock` when
/// nothing is there, `Ok(0)` at the peer's end (or if there is no capacity left).
pub fn receive_now(socket: &impl AsRawFd, bytes: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    let spare = bytes.spare_capacity_mut();
    let len = spare.len().min(limit);
    // SAFETY: the pointer and length are those of live, writable spare capacity; the kernel only writes there.
    let received = check(unsafe {
        libc::recv(
            socket.as_raw_fd(),
            spare.as_mut_ptr().cast(),
            len,
            libc::MSG_DONTWAIT,
        )
    })?;
    // SAFETY: the kernel wrote `received` bytes right behind the vector's end, within its capacity.
    unsafe { bytes.set_len(bytes.len() + received) };
    Ok(received)
}

/// Writes all of `slices` to `file` from `position` on, in as few calls as the kernel allows.
///
/// On an error some prefix of the bytes may have been written.
pub fn write_gathered_at(
    file: &File,
    slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    let mut rest = slices;
    while !rest.is_empty() {
        let count = rest.len().min(IO_SLICES_MAX) as libc::c_int;
        // SAFETY: `IoSlice` has the layout of `iovec`, and `count` slices of it are live.
        let written = check(unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                rest.as_ptr().cast(),
                count,
                position as libc::off_t,
            )
        });
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                position += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads up to `bytes.len()` bytes of `file` at `position`, short only at the file's end; returns the count.
pub fn read_at(file: &File, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Makes a file's bytes and length durable. A failure is final (promise P6): the caller ends the process.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes a directory's entries durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Sets a file's time of modification, ms since 1970 (futimens(2)).
pub fn set_modified(file: &File, ms: i64) -> io::Result<()> {
    let since_1970 = Duration::from_millis(ms.max(0).unsigned_abs());
    let time = SystemTime::UNIX_EPOCH.checked_add(since_1970);
    file.set_modified(time.ok_or(io::ErrorKind::InvalidInput)?)
}

/// Reserves `len` bytes from `position` on without changing the file's length; a filesystem that cannot is no error.
pub fn preallocate(file: &File, position: u64, len: u64) -> io::Result<()> {
    let (position, len) = (position as libc::off_t, len as libc::off_t);
    // SAFETY: a plain call on an open descriptor.
    match check_int(unsafe {
        libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, position, len)
    }) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Lets the system begin to write a range of a file to the disk, where it knows how (sync_file_range(2)): a later sync
/// has less to do at once. Makes nothing durable.
pub fn begin_write_back(file: &File, position: u64, len: u64) -> io::Result<()> {
    // SAFETY: a plain call on an open descriptor.
    #[cfg(target_os = "linux")]
    check_int(unsafe {
        let (position, len) = (position as libc::off64_t, len as libc::off64_t);
        libc::sync_file_range(file.as_raw_fd(), position, len, libc::SYNC_FILE_RANGE_WRITE)
    })?;
    #[cfg(not(target_os = "linux"))]
    let _ = (file, position, len);
    Ok(())
}

/// The bytes of the filesystem that `path` is on, in all and usable without privileges (statvfs(3)).
pub fn disk_space(path: &Path) -> io::Result<(i64, i64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a string that ends in a zero, and writable storage for the answer, both live.
    check_int(unsafe { libc::statvfs(path.as_ptr(), space.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it filled its answer in.
    let space = unsafe { space.assume_init() };
    // Its numbers have 32 bits on some systems.
    let block_bytes = u128::from(space.f_frsize);
    let bytes = |blocks: u128| i64::try_from(blocks * block_bytes).unwrap_or(i64::MAX);
    Ok((bytes(space.f_blocks.into()), bytes(space.f_bavail.into())))
}

/// Sets the sizes of a socket's buffers for what is sent and received, in bytes, and of those of the sockets that it
/// accepts; 0 and less leaves one to the kernel. Linux takes twice as much, for its own needs (socket(7)).
pub fn set_socket_buffers(socket: &impl AsRawFd, send: i32, receive: i32) -> io::Result<()> {
    for (option, bytes) in [(libc::SO_SNDBUF, send), (libc::SO_RCVBUF, receive)] {
        if bytes <= 0 {
            continue;
        }
        let (value, len) = (
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        );
        // SAFETY: the pointer and length are those of a live integer.
        check_int(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len)
        })?;
    }
    Ok(())
}

/// Whether a call failed because the process, or the whole system, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// What to wait for on one descriptor, and what was found.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PollEntry(libc::pollfd);

impl PollEntry {
    /// Waits for bytes to read, or for the peer's end.
    pub fn readable(fd: &impl AsRawFd) -> PollEntry {
        PollEntry::new(fd.as_raw_fd(), libc::POLLIN | libc::POLLRDHUP)
    }

    /// Waits for the peer's end alone, whatever is there to read.
    pub fn hangup(fd: &impl AsRawFd) -> PollEntry {
        PollEntry::new(fd.as_raw_fd(), libc::POLLRDHUP)
    }

    /// Waits for the connection's failure alone, which poll(2) always tells: a reset, or both sides' end.
    pub fn failure(fd: &impl AsRawFd) -> PollEntry {
        PollEntry::new(fd.as_raw_fd(), 0)
    }

    fn new(fd: RawFd, events: libc::c_short) -> PollEntry {
        PollEntry(libc::pollfd {
            fd,
            events,
            revents: 0,
        })
    }

    /// Whether anything waited for happened, errors and hang-ups included.
    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }

    /// Whether the peer sends no more; it may still read.
    pub fn hung_up(&self) -> bool {
        self.0.revents & libc::POLLRDHUP != 0
    }

    /// Whether the connection failed, or both sides ended it: nothing that is sent will arrive.
    pub fn failed(&self) -> bool {
        self.0.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Waits until an entry is ready or `limit` has passed (`None`: no limit); returns how many are ready.
pub fn poll(entries: &mut [PollEntry], limit: Option<Duration>) -> io::Result<usize> {
    // Rounded up, so that a wait of 0.4 ms does not spin; beyond i32 milliseconds the caller asks again.
    let timeout = limit.map_or(-1, |l| {
        l.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int
    });
    // SAFETY: `PollEntry` is transparent over `pollfd`, and the slice outlives the call.
    match check_int(unsafe {
        libc::poll(
            entries.as_mut_ptr().cast(),
            entries.len() as libc::nfds_t,
            timeout,
        )
    }) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        other => other.map(|n| n as usize),
    }
}

/// A counter in the kernel that one thread waits on in [`poll`] and others ring (eventfd(2)).
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter of zero.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: a plain call; the descriptor that it returns is ours alone.
        let fd = check_int(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the counter readable. It cannot fail in a way that loses the ring: a full counter is readable.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight live bytes, as eventfd(2) wants.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sets the counter back to zero.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight live, writable bytes, as eventfd(2) wants.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Many sockets to wait for at once, at a cost that does not grow with those that stay silent (epoll(7)). It is
/// itself waited for in [`poll`].
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Waits for nothing yet.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: a plain call; the descriptor that it returns is ours alone.
        let fd = check_int(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for bytes on `socket`, or for its end, once; `number` tells it from others. Closing it takes it out.
    pub fn add(&self, socket: &impl AsRawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLONESHOT) as u32,
            u64: number,
        };
        self.control(libc::EPOLL_CTL_ADD, socket, &mut event)
    }

    /// Forgets `socket`.
    pub fn remove(&self, socket: &impl AsRawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        self.control(libc::EPOLL_CTL_DEL, socket, &mut event)
    }

    fn control(
        &self,
        what: libc::c_int,
        socket: &impl AsRawFd,
        event: &mut libc::epoll_event,
    ) -> io::Result<()> {
        // SAFETY: both descriptors are open, and `event` outlives the call.
        check_int(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, socket.as_raw_fd(), event) })
            .map(|_| ())
    }

    /// The numbers of some sockets for which something happened, without waiting.
    pub fn ready(&self) -> io::Result<impl Iterator<Item = u64>> {
        const EVENTS: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: the kernel writes at most `EVENTS` events, into live storage.
        let count = check_int(unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as libc::c_int,
                0,
            )
        })?;
        Ok(events
            .into_iter()
            .take(count as usize)
            .map(|event| event.u64))
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Lets the kernel ask a silent peer whether it is still there, and end the connection if not (SO_KEEPALIVE).
pub fn keep_alive(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live integer.
    check_int(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_KEEPALIVE,
            (&raw const on).cast(),
            len,
        )
    })
    .map(|_| ())
}

/// Blocks SIGTERM and SIGINT in this thread and in all that it starts, so that [`wait_for_stop`] alone sees them.
pub fn block_stop_signals() -> io::Result<()> {
    let set = stop_signals();
    // SAFETY: `set` is an initialised signal set; no old set is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Waits for SIGTERM or SIGINT; returns its number.
pub fn wait_for_stop() -> io::Result<i32> {
    let set = stop_signals();
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    match unsafe { libc::sigwait(&set, &mut signal) } {
        0 => Ok(signal),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid storage, and sigemptyset initialises it before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

/// Raises the soft limit of open descriptors to the hard one; returns what holds now.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        check_int(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check_int(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// What glibc's allocator keeps for itself; other allocators are left as they are.
pub struct MallocLimits {
    /// How many arenas there are: each keeps freed pages of its own, which idle connections then pay for.
    pub arenas: i32,
    /// From so many bytes on a block is a mapping of its own, which leaves no hole in an arena. Left alone, the
    /// threshold rises to the largest block that was ever freed, up to 32 MiB.
    pub mapped_bytes_min: i32,
    /// So many free bytes at an arena's end stay there. Fewer cost the same pages' faults again and again, more are
    /// memory that nobody uses.
    pub kept_bytes_max: i32,
}

/// Puts them in force.
pub fn limit_malloc(limits: &MallocLimits) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only stores a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, limits.arenas);
        libc::mallopt(libc::M_MMAP_THRESHOLD, limits.mapped_bytes_min);
        libc::mallopt(libc::M_TRIM_THRESHOLD, limits.kept_bytes_max);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = limits;
}

/// Lets this thread run and use the disk only after others, where the system knows such an order.
pub fn lower_priority() {
    // SAFETY: no memory is touched; on Linux the calls concern the calling thread alone.
    #[cfg(target_os = "linux")]
    unsafe {
        const THREAD: libc::c_int = 1;
        const BEST_EFFORT_LAST: libc::c_int = 2 << 13 | 7;
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, THREAD, 0, BEST_EFFORT_LAST);
    }
}

/// CLOCK_BOOTTIME in ms: it never jumps, and goes on while the machine sleeps.
pub fn boot_clock_ms() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec; the clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    #[allow(clippy::unnecessary_cast)] // 32-bit machines have narrower fields
    let (seconds, nanoseconds) = (now.tv_sec as i64, now.tv_nsec as i64);
    seconds * 1000 + nanoseconds / 1_000_000
}

/// Fills `bytes` with the kernel's random bytes (getrandom(2)).
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and length are those of a live, writable slice.
        filled += check(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) })?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "sys_tests.rs"]
mod tests;
