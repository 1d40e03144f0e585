//! Every target's binary: libFuzzer makes inputs, and the target of the binary's own name takes them. It begins with
//! the seeds, which are put into the folder that FUZZ_SEEDS names.
#![no_main]

use ottla_fuzz::{execute, seeds, target};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAME: &str = env!("CARGO_BIN_NAME");

/// The most memory that an input took.
static MOST: AtomicUsize = AtomicUsize::new(0);

fn write_seeds(folder: &Path) {
    for (number, seed) in seeds::of(NAME).iter().enumerate() {
        let path = folder.join(format!("seed-{number:03}"));
        std::fs::write(path, seed).expect("the folder of the seeds is there");
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
            write_seeds(folder.as_ref());
        }
    },
    |input: &[u8]| {
        let took = execute(target(NAME), input);
        if took > MOST.fetch_max(took, Ordering::Relaxed) {
            eprintln!("took {took}");
        }
    }
);
