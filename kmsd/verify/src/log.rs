//! Is this exported audit log whole, in order, and the one that its signed head names?
//!
//! An export is a folder in the C2SP tlog-tiles layout:
//!
//! ```text
//! checkpoint                    the signed head
//! tile/entries/<N>[.p/<W>]      the leaves
//! tile/<L>/<N>[.p/<W>]          hashes; may be absent, must be right when there
//! ```
//!
//! The leaves are read once, front to back, a bundle at a time, so that a log of any length can be
//! verified in a few hundred kilobytes.

use std::collections::BTreeMap;

use kms_core::audit::checkpoint::{Checkpoint, LogKey};
use kms_core::audit::merkle::{self, Frontier};
use kms_core::audit::{Leaf, LeafOutcome, tile};
use kms_core::id::Digest;
use kms_core::permit::LEASE_LOST;
use serde::Serialize;

use crate::VerifyError;

/// Reads the files of an export, by their tlog-tiles paths.
pub trait Source {
    /// Why a file cannot be read, other than that it is not there.
    type Error: core::fmt::Display;

    /// The file at `path`, or `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// An export held in memory, by path.
impl Source for BTreeMap<String, Vec<u8>> {
    type Error = core::convert::Infallible;

    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.get(path).cloned())
    }
}

/// What came of verifying a log.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct LogReport {
    /// Whether everything fits.
    pub accepted: bool,
    /// What does not, in words, up to [`REASONS_MAX`].
    pub reasons: Vec<String>,
    /// The log's name.
    pub origin: String,
    /// Leaves that the signed head speaks of.
    pub size: u64,
    /// The root that the signed head names.
    pub root: Option<Digest>,
    /// Leaves that were read.
    pub leaves: u64,
    /// Requests permitted and refused, per action; one leaf may stand for many. Of a usage lease that was lost,
    /// as many as it permitted.
    pub actions: BTreeMap<String, Counts>,
    /// Requests over all actions.
    pub total: Counts,
    /// Whether the earlier head that was handed in is one of this log's.
    pub consistent_with_earlier: Option<bool>,
    /// Hash tiles that were there and right.
    pub hash_tiles: u64,
}

/// How many requests were decided how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Permitted.
    pub granted: u64,
    /// Refused.
    pub denied: u64,
}

/// Verifies the export in `source` with the log's public key. With an `earlier` signed head, also
/// that the log has grown from it.
///
/// # Errors
/// [`VerifyError::Source`] when a file is there and cannot be read.
pub fn verify_log<S: Source>(
    source: &mut S,
    key: &LogKey,
    earlier: Option<&str>,
) -> Result<LogReport, VerifyError> {
    let mut report = LogReport::default();
    let head = match head(source, key)? {
        Ok(head) => head,
        Err(reason) => {
            report.reasons.push(reason);
            return Ok(report);
        }
    };
    report.origin.clone_from(&head.origin);
    report.size = head.size;
    report.root = Some(head.root);
    let earlier = earlier.map(|note| Checkpoint::verify(note, key)).transpose();
    let earlier = earlier.unwrap_or_else(|error| {
        report.fault(format!("the earlier checkpoint: {error}"));
        report.consistent_with_earlier = Some(false);
        None
    });
    let mut reading = Reading { earlier, size: head.size, ..Reading::default() };
    report.consistent_with_earlier =
        reading.earlier.as_ref().map(|_| false).or(report.consistent_with_earlier);
    reading.compare(&mut report);
    for n in 0..head.size.div_ceil(tile::TILE_WIDTH) {
        if !reading.bundle(source, n, &mut report)? {
            return Ok(report);
        }
    }
    if reading.frontier.root() != head.root {
        report.fault("the leaves do not give the root that the checkpoint names".to_owned());
    }
    reading.finish(source, &mut report)?;
    if report.consistent_with_earlier == Some(false) {
        report.fault("the log has not grown from the earlier checkpoint".to_owned());
    }
    report.accepted = report.reasons.is_empty();
    Ok(report)
}

/// Whether `proof` shows that `leaf` stands at `index` in the log with the signed head `note`.
pub fn verify_inclusion(
    leaf: &[u8],
    index: u64,
    proof: &[Digest],
    note: &str,
    key: &LogKey,
) -> bool {
    Checkpoint::verify(note, key).is_ok_and(|head| {
        let hash = merkle::leaf_hash(leaf);
        merkle::verify_inclusion(&hash, index, head.size, proof, &head.root)
    })
}

fn head<S: Source>(
    source: &mut S,
    key: &LogKey,
) -> Result<Result<Checkpoint, String>, VerifyError> {
    let Some(note) = read(source, CHECKPOINT)? else {
        return Ok(Err(format!("{CHECKPOINT}: there is none")));
    };
    let note = String::from_utf8(note).ok().filter(|note| is_whole_note(note));
    let note = note.ok_or_else(|| format!("{CHECKPOINT}: not a signed note"));
    let verify =
        |note: String| Checkpoint::verify(&note, key).map_err(|e| format!("{CHECKPOINT}: {e}"));
    Ok(note.and_then(verify))
}

/// Whether nothing stands in a note besides its text and whole signature lines (C2SP signed-note), so
/// that a file with something cut off or put on is seen.
fn is_whole_note(note: &str) -> bool {
    let signatures = note.split_once("\n\n").and_then(|(_, lines)| lines.strip_suffix('\n'));
    signatures.is_some_and(|lines| lines.split('\n').all(|line| line.starts_with("\u{2014} ")))
}

/// What is kept while the leaves are read.
#[derive(Default)]
struct Reading {
    frontier: Frontier,
    earlier: Option<Checkpoint>,
    levels: Vec<Level>,
    /// The usage leases that are open, by the leaf that opened each, and how many uses it permits.
    leases: BTreeMap<u64, u64>,
    size: u64,
}

/// The hash tile that is being filled at one level.
#[derive(Default)]
struct Level {
    hashes: Vec<Digest>,
    number: u64,
}

impl Reading {
    /// Holds the end of a usage lease against the leaf that opened it.
    fn follow_lease(&mut self, index: u64, leaf: &Leaf, report: &mut LogReport) {
        let began = leaf.began_at_index;
        match leaf.outcome() {
            LeafOutcome::Granted if leaf.lease_uses_max > 0 => {
                self.leases.insert(index, leaf.lease_uses_max);
            }
            LeafOutcome::Finished | LeafOutcome::BrokenOff => {
                let is_lost = leaf.reason == LEASE_LOST;
                let digests = leaf.use_digests.len() as u64;
                let problem = match self.leases.remove(&began) {
                    Some(max) if is_lost && leaf.count != max => {
                        "tells another number of uses than the lost lease permits"
                    }
                    Some(max) if leaf.count > max => "tells more uses than the lease permits",
                    Some(_) if !is_lost && digests != leaf.count.saturating_mul(32) => {
                        "has not one digest for each use"
                    }
                    None if is_lost || leaf.count > 0 => "ends a lease that is not open",
                    _ => return,
                };
                report.fault(format!("leaf {index}: {problem}"));
            }
            _ => {}
        }
    }

    /// Reads the bundle `n`. `false` when the leaves end here.
    fn bundle<S: Source>(
        &mut self,
        source: &mut S,
        n: u64,
        report: &mut LogReport,
    ) -> Result<bool, VerifyError> {
        let width = tile::width(0, n, self.size);
        let path = tile::path(None, n, width);
        let Some(bytes) = read(source, &path)? else {
            report.fault(format!("{path}: the bundle is missing"));
            return Ok(false);
        };
        let Some(leaves) = tile::unbundle(&bytes) else {
            report.fault(format!("{path}: the bundle is cut short or damaged"));
            return Ok(false);
        };
        if leaves.len() as u64 != width {
            report.fault(format!("{path}: {} leaves where {width} belong", leaves.len()));
            return Ok(false);
        }
        for bytes in leaves {
            let index = self.frontier.size();
            if let Some(leaf) = report.leaf(index, bytes) {
                self.follow_lease(index, &leaf, report);
                report.count(index, leaf);
            }
            let hash = merkle::leaf_hash(bytes);
            self.frontier.append(hash);
            self.push(source, 0, hash, report)?;
            self.compare(report);
        }
        Ok(true)
    }

    /// Compares with the earlier head, when the log has just its size.
    fn compare(&self, report: &mut LogReport) {
        if let Some(earlier) = self.earlier.as_ref().filter(|e| e.size == self.frontier.size()) {
            report.consistent_with_earlier = Some(earlier.root == self.frontier.root());
        }
    }

    /// Notes a hash of `level`. A tile that is full is compared and makes one hash of the level
    /// above; there are at most eight levels, one for each byte of a leaf's number.
    fn push<S: Source>(
        &mut self,
        source: &mut S,
        level: u8,
        hash: Digest,
        report: &mut LogReport,
    ) -> Result<(), VerifyError> {
        let at = usize::from(level);
        if self.levels.len() <= at {
            self.levels.push(Level::default());
        }
        let Some(tile) = self.levels.get_mut(at) else { return Ok(()) };
        tile.hashes.push(hash);
        if (tile.hashes.len() as u64) < tile::TILE_WIDTH {
            return Ok(());
        }
        let full = core::mem::take(tile);
        tile.number = full.number.saturating_add(1);
        full.compare(source, level, report)?;
        let mut root = Frontier::default();
        for hash in full.hashes {
            root.append(hash);
        }
        self.push(source, level.saturating_add(1), root.root(), report)
    }

    /// Compares the tiles that were begun and not filled.
    fn finish<S: Source>(&self, source: &mut S, report: &mut LogReport) -> Result<(), VerifyError> {
        let begun = (0_u8..).zip(&self.levels).filter(|(_, tile)| !tile.hashes.is_empty());
        for (level, tile) in begun {
            tile.compare(source, level, report)?;
        }
        Ok(())
    }
}

impl Level {
    /// Compares the tile with the file, if the export has one.
    fn compare<S: Source>(
        &self,
        source: &mut S,
        level: u8,
        report: &mut LogReport,
    ) -> Result<(), VerifyError> {
        let path = tile::path(Some(level), self.number, self.hashes.len() as u64);
        let Some(found) = read(source, &path)? else { return Ok(()) };
        let expected: Vec<u8> = self.hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        if found == expected {
            report.hash_tiles = report.hash_tiles.saturating_add(1);
        } else {
            report.fault(format!("{path}: the hashes are not those of the leaves"));
        }
        Ok(())
    }
}

impl LogReport {
    fn fault(&mut self, reason: String) {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }

    /// Reads one leaf, which must be in the one form that the daemon writes.
    fn leaf(&mut self, index: u64, bytes: &[u8]) -> Option<Leaf> {
        self.leaves = self.leaves.saturating_add(1);
        let leaf = Leaf::from_bytes(bytes).ok().filter(|leaf| leaf.to_bytes() == bytes);
        if leaf.is_none() {
            self.fault(format!("leaf {index}: not an audit leaf in canonical form"));
        }
        leaf
    }

    fn count(&mut self, index: u64, leaf: Leaf) {
        let (times, more) = (leaf.count.max(1), leaf.count);
        let outcome = leaf.outcome();
        let counts = self.actions.entry(leaf.action).or_default();
        for counts in [counts, &mut self.total] {
            match outcome {
                LeafOutcome::Granted => counts.granted = counts.granted.saturating_add(times),
                LeafOutcome::Denied => counts.denied = counts.denied.saturating_add(times),
                // A stream was counted when it was permitted. Of a lease only the use that opened it was.
                LeafOutcome::BrokenOff | LeafOutcome::Finished => {
                    counts.granted = counts.granted.saturating_add(more);
                }
                LeafOutcome::Unspecified => {}
            }
        }
        if outcome == LeafOutcome::Unspecified {
            self.fault(format!("leaf {index}: neither granted nor denied"));
        }
    }
}

fn read<S: Source>(source: &mut S, path: &str) -> Result<Option<Vec<u8>>, VerifyError> {
    source
        .read(path)
        .map_err(|error| VerifyError::Source { path: path.to_owned(), reason: error.to_string() })
}

/// Where the signed head lies in an export.
pub const CHECKPOINT: &str = "checkpoint";
/// Most reasons that a report gives.
pub const REASONS_MAX: usize = 64;
