//! The targets: what strangers, clients' bytes and damaged files may do to the broker's readers, and what must hold.
//!
//! One body a target, run by libFuzzer (`make fuzz`) and by `cargo test --test fuzzing` alike. Each must neither panic
//! nor hang, must keep what its module says, and must not hold more memory than its [`Bound`] at any moment, the
//! input itself included. What is taken from one of the broker's budgets (array elements, decompression) is bounded
//! by that budget, so it is counted apart: a target says how much its input took.

mod batches;
mod codecs;
mod files;
mod frames;
mod groups;
mod memory;
mod messages;
pub mod mutate;
mod records;
mod recovery;
pub mod seeds;
mod settings;

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

/// One kind of input.
pub struct Target {
    /// Its name, and its corpus's.
    pub name: &'static str,
    run: fn(&[u8]) -> Taken,
    bound: Bound,
}

/// The memory that an input took at its worst moment, in bytes, but for the input itself and what a check took.
#[derive(Clone, Copy, Default)]
struct Taken {
    most: usize,
    /// What of it one of the broker's budgets gave.
    from_budgets: u64,
}

/// The memory that an input may take: so many times its own length, the input itself included, and so many bytes.
struct Bound {
    times: usize,
    bytes: usize,
}

/// Of what comes over the wire: the bytes themselves, and once more what is made of them.
const WIRE: Bound = Bound {
    times: 2,
    bytes: 64 << 10,
};

/// Every target.
pub const TARGETS: &[Target] = &[
    of("frames", frames::run, WIRE),
    of("requests", messages::requests, WIRE),
    of("responses", messages::responses, WIRE),
    of("batches", batches::run, WIRE),
    of("codecs", codecs::run, WIRE),
    of("recovery", recovery::run, recovery::BOUND),
    of("files", files::run, files::BOUND),
    of("records", records::run, records::BOUND),
    of("groups", groups::run, groups::BOUND),
    of("settings", settings::run, settings::BOUND),
];

const fn of(name: &'static str, run: fn(&[u8]) -> Taken, bound: Bound) -> Target {
    Target { name, run, bound }
}

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("a target of this name")
}

/// Runs one input; panics if anything does not hold. Gives the bytes that it took, those of budgets apart.
pub fn execute(target: &Target, input: &[u8]) -> usize {
    let Taken { most, from_budgets } = (target.run)(input);
    let beyond = most.saturating_sub(from_budgets as usize);
    let allowed = (target.bound.times - 1) * input.len() + target.bound.bytes;
    assert!(
        beyond <= allowed,
        "{}: {} bytes of input took {most} more, {from_budgets} of them from budgets; {allowed} are allowed",
        target.name,
        input.len(),
    );
    beyond
}
