//! What the benches share: a raw client, processes to measure, the bare sides, medians and the printed lines.

#![allow(dead_code)] // Each bench is a program of its own and uses its part of this.

pub mod bare;
pub mod client;
pub mod driver;
pub mod process;
pub mod report;
pub mod sender;
#[path = "../../tests/support/shim.rs"]
pub mod shim;
pub mod skeleton;

use std::path::PathBuf;

/// Errors end a bench; a missed target does not.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a bench was asked for on its command line.
pub struct Args {
    /// `--bootstrap HOST:PORT`: measure this broker instead of starting one.
    pub bootstrap: Option<String>,
    /// `--pairs N`: interleaved pairs a figure.
    pub pairs: Option<usize>,
    /// `--seconds S`: length of one timed run.
    pub seconds: Option<f64>,
    /// `--only TEXT`: skip the figures whose name does not contain it.
    pub only: Option<String>,
    /// What follows a leading word without dashes: this process is a bare side, started by the bench.
    pub child: Vec<String>,
}

impl Args {
    /// Reads the command line; `--bench`, which cargo adds, means nothing.
    pub fn parse() -> Result<Args> {
        use lexopt::prelude::*;
        let mut args = Args {
            bootstrap: None,
            pairs: None,
            seconds: None,
            only: None,
            child: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("bench") => {}
                Long("bootstrap") => args.bootstrap = Some(parser.value()?.string()?),
                Long("pairs") => args.pairs = Some(parser.value()?.parse()?),
                Long("seconds") => args.seconds = Some(parser.value()?.parse()?),
                Long("only") => args.only = Some(parser.value()?.string()?),
                Value(word) => {
                    args.child.push(word.string()?);
                    for word in parser.raw_args()? {
                        args.child.push(word.string()?);
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(args)
    }

    /// Whether the figure of this name is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// Where data directories and built things go: on the disk that holds the target directory.
pub fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
