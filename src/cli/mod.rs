//! The operator's and auditor's tools.
//!
//! Owns: what `main` runs besides the broker. Invariant: no tool changes a data directory.

pub mod verify;
