//! The fuzzing targets without libFuzzer, on any Rust: the seeds, the committed corpus, and seeded changes of both.
//! `make fuzz` lets libFuzzer look for new ones.

#[path = "fuzz/src/lib.rs"]
mod fuzz;

use fuzz::{TARGETS, execute, mutate::mutate};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;

/// Changed inputs tried of each target; `OTTLA_FUZZ_ROUNDS` changes it. A recovery costs as much as fifty others.
const ROUNDS: usize = 3_000;

/// Says which input it was, if what it does panics.
struct Named<'a>(&'static str, &'a [u8]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let bytes: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("fuzzing {}: the input was {bytes}", self.0);
        }
    }
}

fn run(name: &'static str) {
    let target = fuzz::target(name);
    let mut inputs = fuzz::seeds::of(name);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let files = fs::read_dir(corpus).into_iter().flatten();
    let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.sort();
    inputs.extend(
        paths
            .iter()
            .map(|path| fs::read(path).expect("a corpus file")),
    );
    let seed = std::env::var("OTTLA_SEED").map_or_else(
        |_| rand::rng().random(),
        |seed| seed.parse().expect("a number"),
    );
    let rounds = std::env::var("OTTLA_FUZZ_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let rounds = if name == "recovery" {
        rounds / 10
    } else {
        rounds
    };
    println!(
        "fuzzing {name}: {} inputs, {rounds} rounds, OTTLA_SEED={seed}",
        inputs.len()
    );
    let random = &mut StdRng::seed_from_u64(seed);
    let mut most = 0;
    for round in 0..inputs.len() + rounds {
        let mut input = inputs[match round < inputs.len() {
            true => round,
            false => random.random_range(0..inputs.len()),
        }]
        .clone();
        if round >= inputs.len() {
            let other = inputs[random.random_range(0..inputs.len())].clone();
            mutate(random, &mut input, &other);
        }
        let _named = Named(name, &input);
        most = most.max(execute(target, &input));
    }
    println!("fuzzing {name}: at most {most} bytes");
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

tests! { frames requests responses batches codecs recovery files records groups settings }
