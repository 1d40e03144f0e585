//! A broker process for integration tests: a directory of its own, a free port, ended when it goes out of scope.
#![allow(dead_code)] // each test file uses its part

pub mod client;
pub mod codecs;
pub mod keyed;
pub mod producer;
pub mod requests;
pub mod settings;
pub mod transactional;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
const EXIT_MAX: Duration = Duration::from_secs(60);

/// A running `ottla serve`; its log goes on to the test's standard error.
pub struct Broker {
    process: Child,
    /// `HOST:PORT` as the broker printed it.
    pub address: String,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker on `data` with `name=value` settings and waits until it listens.
    pub fn start(data: &Path, settings: &[&str]) -> Broker {
        Broker::start_with(data, settings, |_| {})
    }

    /// As [`Broker::start`]; `prepare` may add to the command, such as a library to preload.
    pub fn start_with(
        data: &Path,
        settings: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Broker {
        Broker::try_start(data, settings, prepare)
            .unwrap_or_else(|(status, log)| panic!("the broker did not start: {status}\n{log}"))
    }

    /// As [`Broker::start_with`]; a broker that ends before it listens gives its exit status and its log.
    pub fn try_start(
        data: &Path,
        settings: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Broker, (ExitStatus, String)> {
        let mut command = command(data, settings);
        prepare(&mut command);
        Broker::run(command)
    }

    /// Runs a command that ends in a broker, and waits until that listens.
    pub fn run(mut command: Command) -> Result<Broker, (ExitStatus, String)> {
        let mut process = command.spawn().expect("the broker's binary");
        let log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let (tell, told) = mpsc::channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    let _ = tell.send(address.trim().to_owned());
                }
                eprintln!("broker: {line}");
                kept.lock().expect("no reader panics").push(line);
            }
        });
        let mut broker = Broker {
            process,
            address: String::new(),
            lines,
            reader: Some(reader),
        };
        match told.recv_timeout(START_MAX) {
            Ok(address) => broker.address = address,
            Err(RecvTimeoutError::Disconnected) => {
                let status = broker.wait();
                return Err((status, broker.log()));
            }
            Err(RecvTimeoutError::Timeout) => panic!("the broker does not listen"),
        }
        Ok(broker)
    }

    /// What it logged so far, less what [`Broker::expect_log`] took; everything, once it has ended.
    pub fn log(&self) -> String {
        self.lines.lock().expect("no reader panics").join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until a line with `text` was logged; the lines before it are not looked at again.
    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            let mut lines = self.lines.lock().unwrap();
            if let Some(at) = lines.iter().position(|line| line.contains(text)) {
                lines.drain(..=at);
                return;
            }
            drop(lines);
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no line with {text:?} was logged");
    }

    /// A line of `/proc/PID/status`, in KiB or as a plain number.
    pub fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the broker lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number =
            line.and_then(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
        number.expect("the line is there")
    }

    /// Waits until no more than so many threads are left.
    #[track_caller]
    pub fn expect_threads(&self, count: u64) {
        let deadline = Instant::now() + START_MAX;
        while self.status("Threads:") > count {
            assert!(Instant::now() < deadline, "threads are left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often its threads went to sleep of their own accord, those that live.
    pub fn switches(&self) -> u64 {
        let tasks = format!("/proc/{}/task", self.process.id());
        let of_task = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        let tasks = std::fs::read_dir(tasks).expect("the broker lives");
        tasks.flatten().filter_map(of_task).sum()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill().expect("kill");
        self.wait();
    }

    /// SIGTERM, and waits for the exit.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &self.pid().to_string()]);
        assert!(kill.status().expect("kill").success());
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        let status = loop {
            match self.process.try_wait().expect("wait") {
                Some(status) => break status,
                None if began.elapsed() > EXIT_MAX => panic!("the broker does not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader");
        }
        status
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command that serves `data` on a free port, its standard error piped. The binary is that of `OTTLA_BROKER`, if
/// it is set: the long targets run against the release build.
pub fn command(data: &Path, settings: &[&str]) -> Command {
    let built = env!("CARGO_BIN_EXE_ottla");
    let mut command = Command::new(std::env::var("OTTLA_BROKER").unwrap_or(built.into()));
    command.arg("serve").arg("--data").arg(data);
    command.args(["--listen", "127.0.0.1:0"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The seed of a test's random choices: that of `OTTLA_SEED`, or a new one; printed, so that a run can be repeated.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("OTTLA_SEED") {
        Ok(text) => text.parse().expect("OTTLA_SEED is a number"),
        Err(_) => rand::random::<u32>().into(),
    };
    eprintln!("{test}: OTTLA_SEED={seed}");
    seed
}
