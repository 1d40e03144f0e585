//! The newest offset of each key, in memory that does not grow.
//!
//! Owns: an open-addressed table of 24 bytes a key: 128 bits of hash and an offset. Keys themselves are not kept: two
//! keys whose hashes agree would be taken for one, and the older one's record lost. That the hash is 128 bits wide
//! makes it improbable; that it is SipHash under a key that is drawn anew for each map leaves nobody a way to bring
//! it about. Kafka's `SkimpyOffsetMap` uses MD5, whose collisions can be made.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An entry that holds no key.
const FREE: i64 = -1;

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

const SLOT_BYTES: usize = size_of::<Slot>();
const _: () = assert!(SLOT_BYTES == 24);

/// The newest offset of each key.
pub struct OffsetMap {
    slots: Box<[Slot]>,
    used: usize,
    used_max: usize,
    keyed: RandomState,
}

impl OffsetMap {
    /// A map of at most `bytes_max` bytes that gets at most `keys_max` keys, and full at `load_factor` (0 to 1).
    /// Whatever is asked for, it takes one key.
    pub fn new(bytes_max: usize, load_factor: f64, keys_max: u64) -> OffsetMap {
        let load = load_factor.clamp(0.1, 0.99);
        let wanted = (keys_max as f64 / load).ceil() as usize;
        let count = (bytes_max / SLOT_BYTES)
            .min(wanted.saturating_add(2))
            .max(2);
        let free = Slot {
            hash: [0; 2],
            offset: FREE,
        };
        OffsetMap {
            slots: vec![free; count].into(),
            used: 0,
            // One stays free, so that every search ends.
            used_max: ((count as f64 * load) as usize).clamp(1, count - 1),
            keyed: RandomState::new(),
        }
    }

    /// Two hashes under one key, of inputs that differ in their first byte: as good as two keys.
    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [0, 1].map(|which| {
            let mut hasher = self.keyed.build_hasher();
            hasher.write_u8(which);
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The slot of a hash: where it is, or where it would be put.
    fn slot(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash[0]) * count as u128) >> 64) as usize;
        while self.slots[at].offset != FREE && self.slots[at].hash != hash {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }

    /// Notes that `key` has a record at `offset`, which is not negative; false if the map has no room for the key.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.slot(hash);
        let slot = &mut self.slots[at];
        if slot.offset == FREE {
            if self.used == self.used_max {
                return false;
            }
            self.used += 1;
        }
        slot.hash = hash;
        slot.offset = slot.offset.max(offset);
        true
    }

    /// The newest offset of `key` that was noted.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let offset = self.slots[self.slot(self.hash(key))].offset;
        (offset != FREE).then_some(offset)
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_says_what_a_plain_map_says_until_it_is_full() {
        for slots in [2, 3, 64, 1000] {
            let mut map = OffsetMap::new(slots * SLOT_BYTES, 0.9, u64::MAX);
            let mut plain: HashMap<Vec<u8>, i64> = HashMap::new();
            let mut offset = 0;
            while map.put(&key(offset), offset) {
                plain.insert(key(offset), offset);
                offset += 1;
            }
            assert_eq!(map.len(), (slots * 9 / 10).clamp(1, slots - 1));
            assert_eq!(plain.len(), map.len());
            for (key, &offset) in &plain {
                assert_eq!(map.get(key), Some(offset));
            }
            assert_eq!(map.get(&key(offset)), None);
            // Those that it has, it takes also when full; an older offset changes nothing.
            assert!(map.put(&key(0), offset + 9) && map.put(&key(0), 0));
            assert_eq!(map.get(&key(0)), Some(offset + 9));
        }
    }

    fn key(offset: i64) -> Vec<u8> {
        (offset * 2 / 3).to_string().into_bytes()
    }

    #[test]
    fn it_takes_no_more_memory_than_its_keys_need() {
        let map = OffsetMap::new(4 << 20, 0.9, 9);
        assert_eq!((map.slots.len(), map.used_max), (12, 10));
        assert_eq!(OffsetMap::new(4 << 20, 0.9, u64::MAX).slots.len(), 174_762);
        assert_eq!(OffsetMap::new(0, 0.9, 9).used_max, 1);
    }
}
