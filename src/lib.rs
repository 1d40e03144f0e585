//! Ottla, Kafka's little sister. The map of the house comes with its last room.

pub mod budget;
pub mod error;
pub mod lock;
pub mod sys;
pub mod wire;
