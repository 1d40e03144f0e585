//! Recovery: from the start after `kill -9`, with no recovery point to begin at, to `listening`, beside a bare
//! sequential CRC-32C scan of the same files, and beside that scan with the bytes written back and synced, which is
//! what promise P6 asks of recovery.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use support::process::{self, Process};
use support::report::{self, Target};
use support::{Args, Result, client, sender};

const TOPIC: &str = "recover";
const TOPIC_BYTES: usize = 1000 << 20;
const SETTINGS: [&str; 1] = ["log.flush.interval.messages=9223372036854775807"];

fn main() -> Result<()> {
    let args = Args::parse()?;
    let directory = tempfile::tempdir_in(support::scratch())?;
    report::heading("recover: 1 GB of log after kill -9");
    let data = directory.path().join("data");
    fill(&data)?;
    let log = data.join(format!("{TOPIC}-0/00000000000000000000.log"));
    let bytes = fs::metadata(&log)?.len() as f64;
    let count = args.pairs.unwrap_or(3);
    let (mut ours, mut scans, mut rewrites) = (Vec::new(), Vec::new(), Vec::new());
    for _pair in 0..count {
        ours.push(restart(&data)?);
        scans.push(scan(&log, false)?);
        rewrites.push(scan(&log, true)?);
    }
    if fs::metadata(&log)?.len() as f64 != bytes {
        return Err("recovery changed the log".into());
    }
    let [ours, scan, rewrite] = [ours, scans, rewrites].map(report::median);
    report::figure("recover", ours, "s", Some(ours / scan), Target::None);
    report::figure("  rate", bytes / 1e9 / ours, "GB/s", None, Target::None);
    let name = "  bare scan, CRC-32C";
    report::figure(name, scan, "s", None, Target::None);
    let name = "  bare scan, written back, synced";
    report::figure(name, rewrite, "s", Some(ours / rewrite), Target::None);
    Ok(())
}

fn fill(data: &Path) -> Result<()> {
    let values: Vec<_> = (0..64).map(|i| client::value(1_000, i)).collect();
    let batch = client::batch(&values);
    let broker = Process::start(process::broker(data, &SETTINGS))?;
    client::create_topic(broker.address, TOPIC, 1)?;
    let frame = client::produce_frame(TOPIC, 0, -1, &batch);
    let error_at = client::produce_error_at(TOPIC);
    let count = TOPIC_BYTES / batch.len();
    sender::send(broker.address, &[frame], count, 5, error_at)?;
    broker.kill()
}

/// Seconds from start to `listening`, with everything to be scanned.
fn restart(data: &Path) -> Result<f64> {
    match fs::remove_file(data.join("recovery-point-offset-checkpoint")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let broker = Process::start(process::broker(data, &SETTINGS))?;
    let seconds = broker.start_time.as_secs_f64();
    broker.kill()?;
    Ok(seconds)
}

/// Seconds to read a file through and checksum it, and perhaps to write each piece back and sync.
fn scan(path: &Path, rewrite: bool) -> Result<f64> {
    let mut piece = vec![0; 256 * 1024];
    let began = Instant::now();
    let file = match rewrite {
        false => File::open(path)?,
        true => OpenOptions::new().read(true).write(true).open(path)?,
    };
    let (mut at, mut crc) = (0, 0);
    loop {
        let n = file.read_at(&mut piece, at)?;
        if n == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &piece[..n]);
        if rewrite {
            file.write_all_at(&piece[..n], at)?;
        }
        at += n as u64;
    }
    if rewrite {
        file.sync_data()?;
    }
    std::hint::black_box(crc);
    Ok(began.elapsed().as_secs_f64())
}
