//! Transactions: which partitions a producer writes to as one, and how that ends (KIP-98, KIP-890).
//!
//! Owns nothing that lasts: `__transaction_state` holds what must outlive the process, and the markers in the
//! partitions' own logs say what consumers may see.
//!
//! A transaction is known in two places. The coordinator, on the control thread, knows its state and its partitions.
//! The writer knows, by log, which producer has an open one there, and where it begins. [`Open`] is what the threads
//! that take batches may know of the former, and [`Serial`] is how the latter tells a batch that comes too late.

mod open;

pub use open::{Open, Part, Serial};
