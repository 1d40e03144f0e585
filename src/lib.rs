//! Ottla, Kafka's little sister: the map.
//!
//! One small broker that speaks Apache Kafka's wire protocol and keeps Apache Kafka's files. Record batches, as the
//! producer compressed them, are the unit of everything: network, check, append, index, fetch.
//!
//! # Reading order
//!
//! 1. [`batch`]: the record batch v2, byte by byte; [`batch::check`] is what a producer's batch must pass.
//!    [`compress`]: how a compressed one is opened, in bounded memory, only to be checked.
//! 2. [`storage`]: a partition's files and every state that they may be in; [`storage::log`] is the writer's hands,
//!    [`storage::view`] what readers see, [`storage::recovery`] the table of what a start may find.
//! 3. [`writer`]: THE durability file. One thread, turn by turn: take, stage, write, answer, sync, publish, answer.
//! 4. [`wire`]: Kafka's messages as tables, and [`api`]: one file an API, table on top, handler below.
//! 5. [`server`]: who is let in ([`server::accept`]); a connection, its thread, its pipelining; how it waits
//!    ([`server::waiting`]) and sends ([`server::reply`]).
//! 6. [`control`] and [`catalog`]: topics and producer ids, as Kafka's own records in a log like any other.
//! 7. [`group`]: consumer groups and their offsets, as pure state machines that [`control`] drives.
//! 8. [`txn`]: transactions, likewise.
//! 9. [`clock`]: broker time. [`cleaner`]: what has grown old by it, what compaction leaves, and what the disk has
//!    garbled ([`storage::audit`]); it prepares, and the writer puts in place.
//! 10. [`broker`]: who is started and stopped in which order. [`config`]: the one table of settings,
//!     and those in force, which change while the broker runs. [`quota`]: who is slowed down.
//! 11. [`cli`]: what reads a data directory without a broker.
//!
//! # A produced byte's way
//!
//! ```text
//! socket -> server::input (the only copy) -> api::produce -> batch::check   on the connection's thread
//!        -> writer::Queue -> writer: one pwritev a segment, one sync a file  on the writer's thread
//!        -> writer::Completion -> server::connection -> socket
//! ```
//!
//! # A fetched byte's way
//!
//! ```text
//! segment file -> sendfile -> socket                                        on the connection's thread
//!    found by api::fetch in an immutable storage::View; only batch headers are read, to find the exact start
//! ```
//!
//! # A group's way
//!
//! ```text
//! socket -> api::join_group, ... -> control::Mailbox                         on the connection's thread, which waits
//!        -> group::Groups: step(event, now) -> records and answers           on the control thread
//!        -> writer: the records, synced -> only now the step counts -> answers -> sockets
//! ```
//!
//! # A transaction's way
//!
//! ```text
//! socket -> api::add_partitions_to_txn, ... -> control::Mailbox              on the connection's thread, which waits
//!        -> txn::Transactions: a step -> a record -> writer, synced -> it counts: txn::Open, answers
//! end    -> PREPARE record, synced -> answer -> markers into every partition, synced -> COMPLETE record
//! ```
//!
//! # An old record's way out
//!
//! ```text
//! retention:  cleaner: segments beyond a limit -> writer: log start raised -> control: saved -> writer: files go
//! compaction: cleaner: `.cleaned` files, synced -> writer: swapped in, a new view -> the old files go
//! rot:        cleaner: `.quarantine`, and `.cleaned` files without it, synced -> writer: swapped in -> epoch raised
//! ```
//!
//! # Threads and owners
//!
//! | thread | how many | owns | waits in |
//! |---|---|---|---|
//! | accept | 1 | the listening sockets, and connections that said nothing yet | `poll` |
//! | connection | 1 a client, from its first byte on | its socket, its pending requests | `poll` on socket and bell, or a send |
//! | writer | 1 | every [`storage::Log`] | its queue, and the disk |
//! | sync | up to 64, while needed | nothing | its queue, and the disk |
//! | control | 1 | the catalog's [`catalog::State`], directories, every group and transaction | its mailbox, and the disk |
//! | cleaner | 1 | `.cleaned` files, until the writer takes them | its next look, and the disk |
//!
//! No state is shared between owners: they send each other messages, and everyone else reads immutable views. The
//! few locks guard pointers and queues, and have an order ([`lock`]).
//!
//! # Promises
//!
//! | | promise | kept by |
//! |---|---|---|
//! | P1 | acked is durable | [`writer`]: an `acks=all` answer needs a [`writer::Durable`] |
//! | P2 | seen is durable | [`storage::View`]: the high watermark is the synced end |
//! | P3 | bytes are sacred | [`batch`]: only what lies outside the CRC is set |
//! | P4 | only the writer changes a log | [`storage::Log`] is neither shared nor cloned |
//! | P5 | nothing acked is cut, and the broker always starts | [`storage::recovery`] |
//! | P6 | a failed sync is final | [`writer`] ends the process; [`storage::recovery`] writes back before it trusts |
//! | P7 | memory is bounded | [`budget`], [`server::input`], [`server::reply`], [`compress`], [`wire::primitives`], [`group::Groups`], [`txn::Transactions`] |
//! | P8 | the clock is not trusted | [`clock::Clock`]: segments and offsets age on it, sessions on CLOCK_BOOTTIME |
//! | P9 | hints cost time, small state is kept twice | [`storage::index`], [`storage::checkpoint`] |
//!
//! `tests/tidy.rs` keeps the house: file and function lengths, where `unsafe` may stand, and which files may sync,
//! rename, cut or remove.

pub mod api;
pub mod batch;
pub mod broker;
pub mod budget;
pub mod catalog;
pub mod cleaner;
pub mod cli;
pub mod clock;
pub mod compress;
pub mod config;
pub mod control;
pub mod error;
pub mod group;
pub mod lock;
pub mod quota;
pub mod seldom;
pub mod server;
pub mod storage;
pub mod sync;
pub mod sys;
pub mod txn;
pub mod wire;
pub mod writer;
