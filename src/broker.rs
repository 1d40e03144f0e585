//! The broker: owns everything, and says in which order it starts and stops.
//!
//! ```text
//! start  lock, meta.properties, clean-shutdown marker off, catalog, logs (recovery), groups,
//!        transactions                                                                          open.rs
//!        writer, control, cleaner, and only then the listening sockets
//! stop   accept, connections (what is pending is answered), cleaner, control, writer (syncs and closes every log),
//!        checkpoints, and last the clean-shutdown marker
//! ```
//! Invariants: nothing is served before every log is recovered, and every group and transaction loaded; the
//! clean-shutdown marker is written only if every step before it succeeded. May lose data: L8 (a false clean-shutdown
//! marker).

mod catch_up;
mod directories;
mod metadata;
mod open;
mod replay;

use crate::budget::Budget;
use crate::catalog;
use crate::cleaner::{self, Cleaner};
use crate::clock::Clock;
use crate::compress::Decoders;
use crate::config::{self, Config, Endpoint};
use crate::control::{Begin, Control, Mailbox, Rooms};
use crate::error::{self, Context, Error, Result};
use crate::lock::Rank;
use crate::quota::Quotas;
use crate::server::Server;
use crate::storage::{self, Partition, checkpoint};
use crate::sys;
use crate::txn;
use crate::writer::{Queue, Writer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a stop waits for connections, twice: to be answered, then to be cut off.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Two arenas suffice where blocks live short. Frames of 64 KiB came and went at their ends: with glibc's own
/// limits that was a page fault for each 4 KiB received, and twice the system time; fixed ones also end with 4 of 20
/// MiB fewer under the load of `tests/ceiling`.
const MALLOC_LIMITS: sys::MallocLimits = sys::MallocLimits {
    arenas: 2,
    mapped_bytes_min: 128 << 10,
    kept_bytes_max: 1 << 20,
};

/// Descriptors that belong neither to the storage nor to connections: directories, the process's own.
const DESCRIPTORS_RESERVED: u64 = 64;

/// A connection's socket, and its bell.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// What the threads share.
pub struct Broker {
    /// The settings, which change while the broker runs.
    pub settings: Arc<config::Published>,
    /// The cluster's id, from `meta.properties`.
    pub cluster_id: String,
    /// The topics.
    pub catalog: Arc<catalog::Published>,
    /// The quotas, and their meters.
    pub quotas: Arc<Quotas>,
    /// The catalog's own partition, which is no topic of the catalog.
    pub metadata: Arc<Partition>,
    /// The way to the writer.
    pub writer: Arc<Queue>,
    /// The way to the control thread.
    pub control: Arc<Mailbox>,
    /// The transactions that are open.
    pub transactions: Arc<txn::Open>,
    /// What wakes the cleaner.
    pub cleaner: Arc<cleaner::Bell>,
    /// Broker time.
    pub clock: Arc<Clock>,
    /// What all logs share.
    pub storage: Arc<storage::Shared>,
    /// Opens compressed batches.
    pub decoders: Decoders,
    /// The memory of requests that are being received or handled.
    pub frames: Budget,
    /// The memory that requests unfold into: many array elements, those that are pipelined, and large answers.
    pub unfolded: Budget,
    /// How many connections there are descriptors for.
    pub connections_possible: usize,
    /// Set when the broker begins to stop.
    pub stopping: AtomicBool,
}

impl Broker {
    /// The settings of this moment.
    pub fn config(&self) -> Arc<Config> {
        self.settings.get()
    }

    /// The address that is advertised to a client that connected to `local`, if one is configured.
    pub fn advertised(&self, local: SocketAddr) -> Option<Endpoint> {
        let config = self.config();
        let listeners = &config.listeners;
        let has_port = |listener: &&Endpoint| listener.port == local.port();
        // Two may have one port, on two addresses; a name, or a port of the kernel's choice, tells nothing.
        let ip = local.ip().to_canonical();
        let has_address = |listener: &&Endpoint| listener.host.parse() == Ok(ip);
        let listener = listeners
            .iter()
            .find(|listener| has_port(listener) && has_address(listener))
            .or(listeners.iter().find(has_port))
            .or(listeners.first())?;
        config.advertised(&listener.name).cloned()
    }
}

/// Runs a broker until SIGTERM or SIGINT, and stops it cleanly.
///
/// # Errors
/// What kept it from starting, or what made the stop not clean; in the latter case the next start recovers.
pub fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    // Before any thread: all inherit the mask.
    sys::block_stop_signals().context(|| "blocking signals".into())?;
    sys::limit_malloc(&MALLOC_LIMITS);
    let (broker, rooms, opened) = prepare(config)?;
    let bell = broker.cleaner.clone();
    let writer = Writer::new(
        broker.writer.clone(),
        broker.control.clone(),
        broker.clock.clone(),
        broker.settings.clone(),
        bell.clone(),
    );
    broker.writer.submit(opened.jobs);
    let writer = spawn("writer", move || writer.run())?;
    let begin = Begin {
        rooms,
        checkpoints: opened.checkpoints,
        state: opened.state,
        metadata: opened.metadata,
        quotas: broker.quotas.clone(),
    };
    let control = Control::new(
        broker.control.clone(),
        broker.writer.clone(),
        broker.catalog.clone(),
        opened.groups,
        opened.transactions,
        opened.clock.clone(),
        begin,
    );
    let control = spawn("control", move || control.run())?;
    let cleaner = Cleaner::new(broker.clone(), bell.clone());
    let cleaner = spawn("cleaner", move || cleaner.run())?;
    // A port that is taken must not make the stop unclean.
    let served = serve(&broker, started);
    bell.stop();
    join(cleaner)?;
    broker.control.stop();
    let mut checkpoints = join(control)?;
    broker.writer.close();
    checkpoints.update(&join(writer)??)?;
    match opened.all_online {
        true => checkpoint::write_clean_shutdown(&broker.config().data_dir)?,
        false => log::warn!("a log could not be opened; the next start recovers"),
    }
    log::info!("stopped");
    served
}

/// Accepts connections until SIGTERM or SIGINT; on return all are answered and closed.
fn serve(broker: &Arc<Broker>, started: Instant) -> Result<()> {
    let server = Arc::new(Server::bind(broker.clone(), &broker.config().listeners)?);
    let accept = {
        let server = server.clone();
        spawn("accept", move || server.run())?
    };
    log::info!("ready after {} ms", started.elapsed().as_millis());
    for address in server.addresses()? {
        // Not a log line: whoever starts a broker reads it, whatever is logged.
        error::say(&format!("listening on {address}"));
    }
    let signal = sys::wait_for_stop().context(|| "waiting for a signal".into())?;
    log::info!("stopping on signal {signal}");
    server.stop_accepting();
    join(accept)?;
    broker.stopping.store(true, Ordering::SeqCst);
    broker.frames.close();
    broker.unfolded.close();
    server.close_connections(STOP_LIMIT);
    Ok(())
}

fn prepare(config: Config) -> Result<(Arc<Broker>, Rooms, open::Opened)> {
    let descriptors =
        sys::raise_descriptor_limit().context(|| "raising the limit of open files".into())?;
    let descriptors = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    let for_storage = (descriptors / 2).clamp(16, 1 << 20);
    let for_connections = descriptors.saturating_sub(for_storage) / DESCRIPTORS_PER_CONNECTION;
    let connections_possible = for_connections.max(1);
    let storage = Arc::new(storage::Shared::new(
        for_storage as usize,
        config.producers_max as usize,
    ));
    let decompression = Budget::new(config.decompression_memory_bytes_max as u64);
    let frames = Budget::new(config.queued_request_bytes_max as u64);
    let window_bytes_max = config.decompression_window_bytes_max as usize;
    let decoders = Decoders::new(decompression, window_bytes_max).with_batches(frames.clone());
    let config = Arc::new(config);
    let settings = Arc::new(config::Published::new(Rank::Settings, config.clone()));
    let rooms = Rooms {
        data: config.data_dir.clone(),
        settings: settings.clone(),
        storage: storage.clone(),
        syncer: Arc::default(),
    };
    let mut opened = open::open(&rooms, &decoders)?;
    if for_connections < config.connections_max as u64 {
        log::info!(
            "no more than {connections_possible} connections: the limit of open files is low"
        );
    }
    let broker = Broker {
        cluster_id: std::mem::take(&mut opened.cluster_id),
        catalog: Arc::new(catalog::Published::new(
            Rank::Catalog,
            Arc::new(std::mem::take(&mut opened.catalog)),
        )),
        quotas: Arc::new(Quotas::new(&config, opened.state.quotas.clone())),
        metadata: opened.metadata.clone(),
        writer: Arc::new(Queue::new(Duration::from_millis(
            config.group_commit_linger_ms as u64,
        ))),
        control: Arc::new(Mailbox::default()),
        transactions: opened.transactions.published().clone(),
        cleaner: Arc::default(),
        clock: opened.clock.clone(),
        storage,
        decoders,
        frames,
        // Such requests are rare and refused, not queued, when there is no room: half as much is plenty.
        unfolded: Budget::new(config.queued_request_bytes_max as u64 / 2),
        connections_possible: connections_possible as usize,
        stopping: AtomicBool::new(false),
        settings,
    };
    Ok((Arc::new(broker), rooms, opened))
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>> {
    let thread = thread::Builder::new().name(name.into());
    thread
        .spawn(run)
        .context(|| format!("starting the {name} thread"))
}

fn join<T>(thread: thread::JoinHandle<T>) -> Result<T> {
    // Only a build that unwinds, a test's, can see this.
    thread
        .join()
        .map_err(|_| Error::new("a thread of the broker panicked"))
}
