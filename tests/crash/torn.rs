//! P5: what a start cuts off a log's end is kept as `.torn`, byte for byte, but for zeros at its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The last segment of each partition.
pub struct Ends(BTreeMap<PathBuf, (PathBuf, Vec<u8>)>);

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

impl Ends {
    /// Of an image on which no broker was started yet.
    pub fn read(image: &Path) -> Ends {
        let last = |dir: PathBuf| {
            let logs = entries(&dir).filter(|path| ends_in(path, "log"));
            let path = logs.max()?;
            let bytes = fs::read(&path).ok()?;
            Some((dir, (path, bytes)))
        };
        Ends(entries(image).filter_map(last).collect())
    }

    /// Checks what a start said that it cut; gives how many tears there were.
    pub fn check(&self, log: &str) -> u64 {
        let mut tears = 0;
        for line in log.lines() {
            let Some((dir, rest)) = line.split_once(" torn bytes were cut") else {
                continue;
            };
            assert!(rest.starts_with("; the log ends at offset"), "{line}");
            let (dir, count) = dir.rsplit_once(": ").expect("a directory and a number");
            let dir = dir.split_once('/').map_or(dir, |(_, path)| path);
            let (dir, count) = (Path::new("/").join(dir), count.parse().expect("a number"));
            let (path, bytes) = &self.0[&dir];
            // Else whole segments went too, each kept under a name of its own.
            if let Some(from) = bytes.len().checked_sub(count) {
                let torn = bytes[from..].to_vec();
                assert!(is_kept(&dir, path, &torn), "{line}");
            }
            tears += 1;
        }
        tears
    }
}

fn is_kept(dir: &Path, log: &Path, torn: &[u8]) -> bool {
    let name = log.file_name().expect("a name").to_string_lossy();
    let kept = entries(dir).filter(|path| ends_in(path, "torn"));
    let mut kept = kept.filter(|path| {
        let kept = path.file_name().expect("a name").to_string_lossy();
        kept.starts_with(&*name)
    });
    let is_zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let is_it = |path: PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        torn.starts_with(&bytes) && is_zeros(&torn[bytes.len()..])
    };
    is_zeros(torn) || kept.any(is_it)
}
