//! What no client should send, each time over a connection of its own.

use crate::common::client::{Client, LONG_AGO_MS, PRODUCE, produce};
use crate::common::codecs::{CODECS, compress};
use crate::load::TOPIC;
use ottla::api::metadata::{MetadataRequest, MetadataRequestTopic};
use ottla::batch::builder::Builder;
use ottla::compress::Codec;
use rand::Rng;
use rand::rngs::StdRng;

const BOMB_BYTES: usize = 32 << 20;

/// A client that means no good.
pub struct Hostile {
    address: String,
    /// Batches that inflate a thousandfold, and do not add up in the end.
    bombs: Vec<Vec<u8>>,
    /// Connections that are left half open, the oldest closed when there are many.
    left_open: Vec<Client>,
}

impl Hostile {
    pub fn new(address: &str) -> Hostile {
        let mut plain = Builder::new(LONG_AGO_MS);
        plain.add(None, Some(&vec![0; BOMB_BYTES]), &[], LONG_AGO_MS);
        let zeros = vec![0; BOMB_BYTES];
        let packed = CODECS.into_iter().filter(|codec| *codec != Codec::None);
        let bomb = |codec| plain.build_from(codec, &compress(codec, &zeros));
        let bombs: Vec<_> = packed.map(bomb).filter(|b| b.len() < 1_000_000).collect();
        assert!(bombs.len() >= 3);
        Hostile {
            address: address.into(),
            bombs,
            left_open: Vec::new(),
        }
    }

    /// One attack.
    pub fn strike(&mut self, rng: &mut StdRng) {
        let mut client = Client::connect(&self.address);
        match rng.random_range(0..7) {
            // A length that no frame may have.
            0 => drop(client.try_send(&i32::MAX.to_be_bytes())),
            // Much announced, little sent.
            1 => drop(client.try_send(&[&(1i32 << 20).to_be_bytes()[..], &[0; 70_000]].concat())),
            // Noise behind a right length.
            2 => {
                let noise: Vec<u8> = (0..rng.random_range(2..5000))
                    .map(|_| rng.random())
                    .collect();
                let length = (noise.len() as i32).to_be_bytes();
                client.try_send(&[&length[..], &noise].concat());
            }
            // A request that ends in its middle.
            3 => {
                let frame = client.frame(PRODUCE, &produce(TOPIC, -1, &self.bombs[0]));
                client.try_send(&frame[..rng.random_range(1..frame.len())]);
            }
            // An array of two thousand million topics.
            4 => {
                let mut frame = client.frame(8, &MetadataRequest::default());
                frame.truncate(frame.len() - 7);
                frame.extend([0x7f, 0xff, 0xff, 0xff, 0, 0, 0]);
                client.try_send(&frame);
            }
            // As many as a frame holds.
            5 => {
                let topic = MetadataRequestTopic {
                    name: Some("x".into()),
                    ..MetadataRequestTopic::default()
                };
                let request = MetadataRequest {
                    topics: Some(vec![topic; 20_000]),
                    ..MetadataRequest::default()
                };
                client.try_send(&client.frame(9, &request));
            }
            _ => {
                let bomb = &self.bombs[rng.random_range(0..self.bombs.len())];
                assert_ne!(client.produce(TOPIC, -1, bomb).error_code, 0);
            }
        }
        self.left_open.push(client);
        if self.left_open.len() > 4 {
            self.left_open.remove(0);
        }
    }
}
