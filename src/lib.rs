//! Ottla, Kafka's little sister. The map of the house comes with its last room.

pub mod batch;
pub mod budget;
pub mod compress;
pub mod error;
pub mod lock;
pub mod storage;
pub mod sync;
pub mod sys;
pub mod wire;
