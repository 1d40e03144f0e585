//! Faults of the disk, one at each place where there can be one: a small life of a broker, always the same, is led once
//! to count what it asks of the disk, and then once for each such call, which fails. Whatever it was: what was acked is
//! there, errors are Kafka's, nothing panics or hangs, the process ends after a failed sync, and the next start
//! succeeds. Beside that: a disk that is full indeed ([`full`]), and no descriptors ([`descriptors`]).
//!
//! A run of the tests tries some sites, chosen by a seed; `make faults` tries all. OTTLA_FAULTS says how many (a
//! number, or `all`), OTTLA_FAULTS_ONLY of which faults (a part of their name), OTTLA_SEED which.

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod full;
mod life;
#[allow(dead_code)] // other tests use the rest of it
#[path = "../support/shim.rs"]
mod shim;
mod sites;
mod told;
