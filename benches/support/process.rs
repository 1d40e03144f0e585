//! A measured process: the release broker, or a bare side (this bench again, with a word as its first argument).

#![allow(unsafe_code)]

use super::{Result, client, shim::Shim};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A started process that listens; killed when dropped.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its line `listening on`.
    pub start_time: Duration,
}

/// The broker's command line, with settings of the form `name=value`.
pub fn broker(data: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// This bench as a bare side.
pub fn bare(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

impl Process {
    /// Starts `command` and waits for the line `listening on HOST:PORT` on its stderr.
    pub fn start(mut command: Command) -> Result<Process> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("stderr was asked for")?);
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Err(format!("{command:?} ended: {}\n{said}", child.wait()?).into());
            }
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.trim().parse()?;
            }
            said.push_str(&line);
        };
        let start_time = started.elapsed();
        // It must never block on its log; what it still says is shown only if it is worth a person's look.
        thread::spawn(move || {
            for line in lines.lines().map_while(|line| line.ok()) {
                if line.contains("ERROR") || line.contains("panicked") {
                    eprintln!("{line}");
                }
            }
        });
        Ok(Process {
            child,
            address,
            start_time,
        })
    }

    /// Starts `command` with the shim preloaded.
    pub fn start_with(mut command: Command, shim: &Shim) -> Result<Process> {
        shim.attach(&mut command);
        Process::start(command)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The contents of a file of `/proc/PID/`.
    pub fn proc(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{name}", self.id()))?)
    }

    /// Creates a topic on it.
    pub fn create_topic(&self, name: &str, partitions: usize) -> Result<()> {
        client::create_topic(self.address, name, partitions)
    }

    /// Ends it by SIGTERM and waits.
    pub fn stop(mut self) -> Result<()> {
        // SAFETY: a plain call; the process is our child and was not waited for, so its id is not used again.
        unsafe { libc::kill(self.id() as libc::pid_t, libc::SIGTERM) };
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the process ended with {status}").into());
        }
        Ok(())
    }

    /// Ends it by SIGKILL and waits.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
