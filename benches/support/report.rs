//! One printed line a figure: `name value unit ratio target PASS/MISS`.

use std::fmt;

/// What a figure is held against.
#[derive(Clone, Copy)]
pub enum Target {
    /// The value is to be at least this.
    AtLeast(f64),
    /// The value is to be at most this.
    AtMost(f64),
    /// The ratio is to be at least this.
    Ratio(f64),
    /// The ratio is to be at most this.
    RatioAtMost(f64),
    /// Printed beside the others, for orientation.
    None,
}

/// Prints one figure. `ratio` is to the physical limit measured beside it, or to whatever the name says.
pub fn figure(name: &str, value: f64, unit: &str, ratio: Option<f64>, target: Target) {
    let verdict = |reached| if reached { "PASS" } else { "MISS" };
    let (target, verdict) = match target {
        Target::AtLeast(t) => (format!(">= {}", Short(t)), verdict(value >= t)),
        Target::AtMost(t) => (format!("<= {}", Short(t)), verdict(value <= t)),
        Target::Ratio(t) => (
            format!("ratio >= {t}"),
            verdict(ratio.is_some_and(|r| r >= t)),
        ),
        Target::RatioAtMost(t) => (
            format!("ratio <= {t}"),
            verdict(ratio.is_some_and(|r| r <= t)),
        ),
        Target::None => ("-".into(), ""),
    };
    let ratio = ratio.map_or("-".into(), |r| format!("{r:.3}"));
    println!(
        "{name:<52} {:>9} {unit:<10} {ratio:>7}  {target:<13} {verdict}",
        Short(value)
    );
}

/// Names the columns, and what runs.
pub fn heading(bench: &str) {
    println!("\n{bench}");
    println!(
        "{:<52} {:>9} {:<10} {:>7}  target",
        "name", "value", "unit", "ratio"
    );
}

/// Four digits or so: enough for a figure that varies by per cents.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let digits = match self.0.abs() {
            x if x >= 100.0 || x == 0.0 || x.fract() == 0.0 => 0,
            x if x >= 10.0 => 1,
            x if x >= 0.1 => 3,
            _ => 5,
        };
        f.pad(&format!("{:.digits$}", self.0))
    }
}

/// The middle value; of an even count, the mean of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

/// Two sides measured in turn, so that both see the machine's moods.
#[derive(Default)]
pub struct Pairs {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Pairs {
    /// Runs both sides `count` times; every second pair the other one goes first.
    pub fn measure<E>(
        count: usize,
        mut ours: impl FnMut() -> Result<f64, E>,
        mut bare: impl FnMut() -> Result<f64, E>,
    ) -> Result<Pairs, E> {
        let mut pairs = Pairs::default();
        for i in 0..count {
            if i % 2 == 0 {
                pairs.ours.push(ours()?);
                pairs.bare.push(bare()?);
            } else {
                pairs.bare.push(bare()?);
                pairs.ours.push(ours()?);
            }
        }
        Ok(pairs)
    }

    /// The median of our side.
    pub fn ours(&self) -> f64 {
        median(self.ours.clone())
    }

    /// The median of the bare side.
    pub fn bare(&self) -> f64 {
        median(self.bare.clone())
    }

    /// The median of the pairs' ratios, ours to bare.
    pub fn ratio(&self) -> f64 {
        median(
            self.ours
                .iter()
                .zip(&self.bare)
                .map(|(ours, bare)| ours / bare)
                .collect(),
        )
    }
}
