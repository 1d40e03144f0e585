//! The producer of the throughput bench: a thread a connection, large frames, a few in flight.

use super::{Result, client};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

/// Sends each of `frames` (one a connection) `count` times with `in_flight` unanswered; returns the seconds until
/// the last answer. `error_at` is where in an answer, from its length field on, an error code stands.
pub fn send(
    address: SocketAddr,
    frames: &[Vec<u8>],
    count: usize,
    in_flight: usize,
    error_at: usize,
) -> Result<f64> {
    let began = Instant::now();
    thread::scope(|scope| {
        let senders: Vec<_> = frames
            .iter()
            .map(|frame| scope.spawn(move || send_one(address, frame, count, in_flight, error_at)))
            .collect();
        for sender in senders {
            sender
                .join()
                .map_err(|_| "a sender panicked")?
                .map_err(|e| e.to_string())?;
        }
        Ok(began.elapsed().as_secs_f64())
    })
}

fn send_one(
    address: SocketAddr,
    frame: &[u8],
    count: usize,
    in_flight: usize,
    error_at: usize,
) -> std::io::Result<()> {
    let mut stream = client::connect(address)?;
    let mut answer = Vec::new();
    let in_flight = in_flight.min(count);
    for turn in 0..count + in_flight {
        if turn >= in_flight {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            answer.resize(u32::from_be_bytes(length) as usize, 0);
            stream.read_exact(&mut answer)?;
            let error = &answer[error_at - 4..error_at - 2];
            if error != [0, 0] {
                return Err(std::io::Error::other(format!("answered error {error:?}")));
            }
        }
        if turn < count {
            stream.write_all(frame)?;
        }
    }
    Ok(())
}
