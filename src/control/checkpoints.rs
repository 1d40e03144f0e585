//! The data directory's two checkpoints: how far each log is synced, and where it begins.
//!
//! Owns: both files and their lines in memory. Invariants: a line names a partition of a topic that exists; a
//! deleted topic's lines are gone, durably, before its deletion is answered, so that a topic made again under its
//! name does not inherit a log start; the line of a log that could not be opened is carried over as it was.

use crate::error::{Error, Result};
use crate::storage::Partition;
use crate::storage::checkpoint::{self, Offsets, RECOVERY_POINTS, read_offsets, write_offsets};
use crate::writer::RecoveryPoints;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lines of both checkpoints.
pub struct Checkpoints {
    data: PathBuf,
    /// Everything below is synced.
    pub recovery_points: Offsets,
    /// The first offset.
    pub log_starts: Offsets,
    /// Whether the file of recovery points lags behind.
    points_unsaved: bool,
    /// Whether the file of log starts does.
    starts_unsaved: bool,
}

impl Checkpoints {
    /// Reads both. Recovery points are hints: without them the start takes longer. Log starts are promises: a start
    /// without them would show deleted records again, and save that.
    ///
    /// # Errors
    /// The disk refuses to give the log starts.
    pub fn load(data: &Path) -> Result<Checkpoints> {
        let recovery_points = read_offsets(&data.join(RECOVERY_POINTS)).unwrap_or_else(|error| {
            log::warn!("{error}; going on without it");
            Offsets::new()
        });
        let log_starts = checkpoint::read_log_starts(data).map_err(|error| {
            let advice = "without it, once it is moved away, deleted records would be back";
            Error::new(format!("{error}: {advice}"))
        })?;
        Ok(Checkpoints {
            data: data.into(),
            recovery_points,
            log_starts,
            points_unsaved: false,
            starts_unsaved: false,
        })
    }

    /// Takes in what the writer holds, and saves.
    pub fn update(&mut self, points: &RecoveryPoints) -> Result<()> {
        for point in points {
            let key = (point.topic.to_string(), point.index);
            self.recovery_points.insert(key.clone(), point.offset);
            // What retention asks for is saved before the log has it.
            let start = self.log_starts.entry(key).or_default();
            *start = point.log_start.max(*start);
        }
        (self.points_unsaved, self.starts_unsaved) = (true, true);
        self.save()
    }

    /// Sees to it that log starts can be saved on a disk that is full by then.
    pub fn reserve(&self) -> Result<()> {
        checkpoint::reserve_log_starts(&self.data, &self.log_starts)
    }

    /// Takes in log starts, of which none falls; on return they are durable.
    pub fn raise_starts(&mut self, starts: &[(Arc<Partition>, i64)]) -> Result<()> {
        for (partition, start) in starts {
            let key = (partition.topic.to_string(), partition.index);
            let line = self.log_starts.entry(key).or_default();
            self.starts_unsaved |= start > line;
            *line = *start.max(line);
        }
        self.save_starts()
    }

    /// Forgets the lines that are not to be kept; on return the files show none of them, nor does the generation that
    /// would be read where the disk garbles the newest.
    pub fn keep(&mut self, mut keep: impl FnMut(&str, i32) -> bool) -> Result<()> {
        let (points, starts) = (self.recovery_points.len(), self.log_starts.len());
        self.recovery_points
            .retain(|(topic, index), _| keep(topic, *index));
        self.log_starts
            .retain(|(topic, index), _| keep(topic, *index));
        if self.recovery_points.len() < points || self.log_starts.len() < starts {
            (self.points_unsaved, self.starts_unsaved) = (true, true);
            self.save()?;
            (self.points_unsaved, self.starts_unsaved) = (true, true);
        }
        self.save()
    }

    fn save(&mut self) -> Result<()> {
        self.save_starts()?;
        if self.points_unsaved {
            write_offsets(&self.data.join(RECOVERY_POINTS), &self.recovery_points)?;
            self.points_unsaved = false;
        }
        Ok(())
    }

    fn save_starts(&mut self) -> Result<()> {
        if self.starts_unsaved {
            checkpoint::write_log_starts(&self.data, &self.log_starts)?;
            self.starts_unsaved = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::checkpoint::LOG_STARTS;
    use crate::writer::RecoveryPoint;

    #[test]
    fn a_deleted_topics_lines_are_gone_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let point = |topic: &str, index| RecoveryPoint {
            topic: topic.into(),
            index,
            offset: 40,
            log_start: 4,
        };
        let mut checkpoints = Checkpoints::load(dir.path()).unwrap();
        checkpoints
            .update(&vec![point("a", 0), point("a", 1), point("b", 0)])
            .unwrap();
        checkpoints.keep(|topic, _| topic != "a").unwrap();
        // Not held by the writer any more, and still there.
        checkpoints.update(&vec![]).unwrap();
        let read = Checkpoints::load(dir.path()).unwrap();
        let b = ("b".to_string(), 0);
        assert_eq!(read.log_starts, Offsets::from([(b.clone(), 4)]));
        assert_eq!(read.recovery_points, Offsets::from([(b, 40)]));
    }

    /// In a topic that has its name the log start would hide what was acknowledged, and the recovery point tell of a
    /// loss.
    #[test]
    fn a_deleted_topics_lines_do_not_come_back_from_an_older_generation() {
        let dir = tempfile::tempdir().unwrap();
        let point = RecoveryPoint {
            topic: "a".into(),
            index: 0,
            offset: 40,
            log_start: 4,
        };
        let mut checkpoints = Checkpoints::load(dir.path()).unwrap();
        checkpoints.update(&vec![point]).unwrap();
        checkpoints.keep(|_, _| false).unwrap();
        for newest in [LOG_STARTS, RECOVERY_POINTS] {
            std::fs::write(dir.path().join(newest), "rot").unwrap();
        }
        let read = Checkpoints::load(dir.path()).unwrap();
        assert_eq!(read.log_starts, Offsets::new());
        assert_eq!(read.recovery_points, Offsets::new());
    }
}
