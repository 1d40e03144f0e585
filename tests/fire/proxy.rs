//! A proxy between producers and broker that cuts connections at random: within a request, within an answer, or
//! after requests that arrived and whose answers did not.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How many bytes a connection has in the direction in which it is cut: e to the power of these.
const REQUESTS_LN: std::ops::Range<f64> = 5.0..12.0;
const ANSWERS_LN: std::ops::Range<f64> = 4.0..8.0;

/// One address for as many brokers as there will be, one after the other.
pub struct Proxy {
    pub address: String,
    broker: Mutex<Option<String>>,
    deaths: AtomicU64,
    connections: AtomicU64,
    calm: AtomicBool,
    is_patient: bool,
}

impl Proxy {
    /// A proxy without a broker; it refuses until there is one. A patient one cuts a client's connection only once the
    /// broker has done what came to it.
    pub fn start(seed: u64, is_patient: bool) -> Arc<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Arc::new(Proxy {
            address: listener.local_addr().unwrap().to_string(),
            broker: Mutex::new(None),
            deaths: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            is_patient,
        });
        let serving = proxy.clone();
        thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(seed);
            for client in listener.incoming() {
                serving.join(client.unwrap(), &mut rng);
            }
        });
        proxy
    }

    /// From now on connections go to the broker at `address`.
    pub fn up(&self, address: &str) {
        *self.broker.lock().unwrap() = Some(address.into());
    }

    /// The broker is dead, and whatever was sent to it has had all the effect that it will have.
    pub fn down(&self) {
        *self.broker.lock().unwrap() = None;
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }

    /// How many brokers have died.
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::SeqCst)
    }

    /// How many connections reached a broker.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// New connections are cut no more.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    fn join(&self, client: TcpStream, rng: &mut StdRng) {
        let Some(address) = self.broker.lock().unwrap().clone() else {
            return;
        };
        let Ok(broker) = TcpStream::connect(address) else {
            return;
        };
        self.connections.fetch_add(1, Ordering::SeqCst);
        client.set_nodelay(true).unwrap();
        broker.set_nodelay(true).unwrap();
        let (mut requests, mut answers) = (u64::MAX, u64::MAX);
        if !self.calm.load(Ordering::SeqCst) {
            match rng.random() {
                true => requests = rng.random_range(REQUESTS_LN).exp() as u64,
                false => answers = rng.random_range(ANSWERS_LN).exp() as u64,
            }
        }
        let pause = Duration::from_millis(rng.random_range(0..200));
        let (from, to) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
        let is_patient = self.is_patient;
        thread::spawn(move || {
            pump(&from, &to, requests);
            match is_patient {
                // The broker answers what it has, and ends the connection.
                true => drop(to.shutdown(Shutdown::Write)),
                false => cut(&from, &to),
            }
        });
        thread::spawn(move || {
            if pump(&broker, &client, answers) {
                thread::sleep(pause);
            }
            if is_patient {
                let _ = broker.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut &broker, &mut std::io::sink());
            }
            cut(&broker, &client);
        });
    }
}

fn cut(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

/// Hands on so many bytes; says whether that is why it ends.
fn pump(mut from: &TcpStream, mut to: &TcpStream, mut left: u64) -> bool {
    let mut buffer = [0; 16 << 10];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer) else {
            return false;
        };
        let len = left.min(read as u64);
        if to.write_all(&buffer[..len as usize]).is_err() {
            return false;
        }
        left -= len;
    }
    true
}
