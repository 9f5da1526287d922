//! `kmsctl audit`: the log, read from the daemon and verified without it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use kms_client::{Client, v1};
use kms_core::audit::checkpoint::Checkpoint;
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::id::Digest;
use kms_verify::log::CHECKPOINT;
use kms_verify::{LogKey, Source, verify_inclusion, verify_log};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::tiles::{Sink, Tiles};
use crate::view;

#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum Audit {
    /// Show the signed head of the log.
    Head {
        /// File with the log key to believe; without it the daemon's word is taken.
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,
    },
    /// Show the newest entries. Needs the role auditor.
    Tail {
        /// How many.
        #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        count: u64,
    },
    /// Write the whole log into a new folder, as tiles, verifying while writing. Needs auditor.
    Export {
        /// The folder; must be new or empty.
        folder: PathBuf,
        /// File with the log key to believe; without it the daemon's word is taken.
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,
    },
    /// Verify an exported log, without daemon and network.
    Verify {
        /// The folder.
        folder: PathBuf,
        /// File with the log key.
        #[arg(long, value_name = "FILE")]
        log_key: PathBuf,
        /// A signed head that you kept: the log must have grown from it.
        #[arg(long, value_name = "FILE")]
        earlier: Option<PathBuf>,
    },
    /// Fetch the proof that an entry stands in the log, and check it. Needs auditor.
    Prove {
        /// Index of the entry.
        index: u64,
        /// File with the log key to believe; without it the daemon's word is taken.
        #[arg(long, value_name = "FILE")]
        log_key: Option<PathBuf>,
    },
}

impl Audit {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Head { log_key } => {
                let client = connection.open().await?;
                let Head { checkpoint, note, key } =
                    Head::fetch(&client, log_key.as_deref()).await?;
                Ok(Report::fields(json!({
                    "origin": checkpoint.origin,
                    "size": checkpoint.size,
                    "root": checkpoint.root,
                    "log_key": key.to_string(),
                    "checkpoint": note,
                })))
            }
            Self::Tail { count } => tail(connection, count).await,
            Self::Export { folder, log_key } => {
                export(connection, &folder, log_key.as_deref()).await
            }
            Self::Verify { folder, log_key, earlier } => {
                verify(folder, &log_key, earlier.as_deref())
            }
            Self::Prove { index, log_key } => prove(connection, index, log_key.as_deref()).await,
        }
    }
}

/// The log's signed head, its signature checked.
struct Head {
    checkpoint: Checkpoint,
    note: String,
    key: LogKey,
}

impl Head {
    async fn fetch(client: &Client, pinned: Option<&Path>) -> Result<Self, Failure> {
        let answer = client
            .retry(async || client.audit().get_checkpoint(v1::GetCheckpointRequest {}).await)
            .await?;
        let key = match pinned {
            Some(path) => input::parse_file(path)?,
            None => answer.log_key.parse().map_err(|_| Failure::Answer("no log key"))?,
        };
        Self::read(answer.checkpoint, key)
    }

    fn read(note: String, key: LogKey) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::verify(&note, &key)
            .map_err(|error| Failure::NotAccepted(error.to_string()))?;
        Ok(Self { checkpoint, note, key })
    }
}

async fn tail(connection: &Connection, count: u64) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let size = Head::fetch(&client, None).await?.checkpoint.size;
    let mut index = size.saturating_sub(count);
    let mut rows = Vec::new();
    while index < size {
        for bytes in leaves(&client, index, size).await? {
            let leaf = Leaf::from_bytes(&bytes).map_err(|_| Failure::Answer("no audit leaf"))?;
            rows.push(entry(index, leaf));
            index += 1;
        }
    }
    let columns = &["index", "time", "actor", "action", "resource", "outcome", "reason", "service"];
    Ok(Report::rows("entries", columns, rows))
}

/// The next leaves from `first` on, at least one and none beyond `size`.
async fn leaves(client: &Client, first: u64, size: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let request = v1::ListAuditLeavesRequest { first_index: first, page_size: PAGE_LEAVES };
    let answer = client.retry(async || client.audit().list_audit_leaves(request).await).await?;
    let mut leaves = answer.leaves;
    // The log goes on growing while it is read: what is beyond the head is not this one's.
    leaves.truncate(usize::try_from(size - first).unwrap_or(usize::MAX));
    if leaves.is_empty() {
        Err(Failure::Answer("fewer leaves than the head names"))
    } else {
        Ok(leaves)
    }
}

fn entry(index: u64, leaf: Leaf) -> Value {
    let outcome = match leaf.outcome() {
        LeafOutcome::BrokenOff => "BROKEN_OFF",
        LeafOutcome::Denied => "DENIED",
        LeafOutcome::Finished => "FINISHED",
        LeafOutcome::Granted => "GRANTED",
        LeafOutcome::Unspecified => "UNSPECIFIED",
    };
    json!({
        "index": index,
        "time": view::time_ms(leaf.time_ms),
        "actor": leaf.actor,
        "authentication": leaf.authentication,
        "role": leaf.role,
        "action": leaf.action,
        "resource": leaf.resource,
        "other_resource": leaf.other_resource,
        "row_set_root": hex::encode(&leaf.row_set_root),
        "row_set_sequence": leaf.row_set_sequence,
        "mechanism": leaf.mechanism,
        "service": view::service_indicator(leaf.service),
        "region": leaf.region,
        "outcome": outcome,
        "reason": leaf.reason,
        "operation_id": hex::encode(leaf.operation_id),
        "request_digest": hex::encode(leaf.request_digest),
        "requirement_digest": hex::encode(leaf.requirement_digest),
        "quorum_digest": hex::encode(leaf.quorum_digest),
        "key_quorum_digest": hex::encode(leaf.key_quorum_digest),
        "trust_root": leaf.trust_root,
        "verdict_digest": hex::encode(leaf.verdict_digest),
        "evidence_digest": hex::encode(leaf.evidence_digest),
        "recipient_digest": hex::encode(leaf.recipient_digest),
        "proposal_digest": hex::encode(leaf.proposal_digest),
        "approvers": leaf.approvers,
        "row_digests": leaf.row_digests.iter().map(hex::encode).collect::<Vec<_>>(),
        "app": leaf.app,
        "model": leaf.model,
        "dataset": leaf.dataset,
        "not_established": leaf.not_established,
        "count": if leaf.began_at_index == 0 { leaf.count.max(1) } else { leaf.count },
        "began_at_index": leaf.began_at_index,
        "length_bytes": leaf.length_bytes,
        "lease_uses_max": leaf.lease_uses_max,
        "lease_until": (leaf.lease_until_ms != 0).then(|| view::time_ms(leaf.lease_until_ms)),
        "use_digests": leaf.use_digests.chunks(32).map(hex::encode).collect::<Vec<_>>(),
    })
}

async fn export(
    connection: &Connection,
    folder: &Path,
    pinned: Option<&Path>,
) -> Result<Report, Failure> {
    let mut export = Folder::create(folder)?;
    let client = connection.open().await?;
    let Head { checkpoint, note, key } = Head::fetch(&client, pinned).await?;
    let mut tiles = Tiles::default();
    while tiles.size() < checkpoint.size {
        for leaf in leaves(&client, tiles.size(), checkpoint.size).await? {
            tiles.push(leaf, &mut export)?;
        }
    }
    let root = tiles.finish(&mut export)?;
    if root != checkpoint.root {
        return Err(Failure::NotAccepted(
            "the leaves do not give the root that the checkpoint names".to_owned(),
        ));
    }
    export.put(LOG_KEY, format!("{key}\n").as_bytes())?;
    // Last: a folder with a checkpoint is a whole export.
    export.put(CHECKPOINT, note.as_bytes())?;
    Ok(Report::fields(json!({
        "folder": folder.display().to_string(),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": root,
        "verified": true,
    })))
}

fn verify(folder: PathBuf, log_key: &Path, earlier: Option<&Path>) -> Result<Report, Failure> {
    let key: LogKey = input::parse_file(log_key)?;
    let earlier = earlier.map(input::read_text).transpose()?;
    let mut source = Folder { path: folder };
    let report = verify_log(&mut source, &key, earlier.as_deref())
        .map_err(|error| Failure::Input(error.to_string()))?;
    let accepted = report.accepted;
    let value = serde_json::to_value(report).unwrap_or(Value::Null);
    let mut shown = Report::fields(value);
    if !accepted {
        shown = shown.note("\nNOT ACCEPTED");
    }
    Ok(shown.accepted_if(accepted))
}

async fn prove(
    connection: &Connection,
    index: u64,
    pinned: Option<&Path>,
) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let key = Head::fetch(&client, pinned).await?.key;
    let request = v1::GetInclusionProofRequest { index };
    let answer = client.retry(async || client.audit().get_inclusion_proof(request).await).await?;
    let v1::GetInclusionProofResponse { leaf, hashes, checkpoint: note, audit: _ } = answer;
    let proof: Result<Vec<Digest>, _> =
        hashes.iter().map(|hash| Digest::try_from(hash.as_slice())).collect();
    let proof = proof.map_err(|_| Failure::Answer("a hash of another length"))?;
    if !verify_inclusion(&leaf, index, &proof, &note, &key) {
        return Err(Failure::NotAccepted(
            "the proof does not lead from the entry to a head signed by the log key".to_owned(),
        ));
    }
    let read = Leaf::from_bytes(&leaf).map_err(|_| Failure::Answer("no audit leaf"))?;
    Ok(Report::fields(entry(index, read))
        .with("leaf", json!(hex::encode(&leaf)))
        .with("inclusion_proof", json!(proof))
        .with("checkpoint", json!(note))
        .with("log_key", json!(key.to_string()))
        .with("verified", json!(true)))
}

/// An export as a folder of files.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder, or takes an empty one.
    fn create(path: &Path) -> Result<Self, Failure> {
        let failure = |cause| Failure::File { path: path.to_owned(), cause };
        fs::create_dir_all(path).map_err(failure)?;
        match fs::read_dir(path).map_err(failure)?.next() {
            None => Ok(Self { path: path.to_owned() }),
            Some(_) => Err(Failure::input(path.display(), "the folder is not empty")),
        }
    }
}

impl Sink for Folder {
    fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(path);
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|cause| Failure::File { path, cause })
    }
}

impl Source for Folder {
    type Error = io::Error;

    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, io::Error> {
        let path = self.path.join(path);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > TILE_BYTES_MAX => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "longer than any tile"))
            }
            Ok(_) => fs::read(&path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Leaves asked for at a time: as many as a tile holds.
const PAGE_LEAVES: i32 = 256;
/// An entry bundle of 256 leaves of the greatest length.
const TILE_BYTES_MAX: u64 = 256 * (65_535 + 2);
const LOG_KEY: &str = "log.key";
const HELP: &str = "\
Examples:
  kmsctl audit head --log-key trusted.key
  kmsctl audit tail -n 50
  kmsctl audit prove 42 --log-key trusted.key
  kmsctl audit export 2026-01/                                  # on the network, as auditor
  kmsctl audit verify 2026-01/ --log-key trusted.key            # anywhere, later
  kmsctl audit verify 2026-02/ --log-key trusted.key --earlier 2026-01/checkpoint

An export holds the log key that the daemon named; verify with one that you trust.";

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn export(size: u64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut files = Folder::create(&path).unwrap();
        let mut tiles = Tiles::default();
        for n in 0..size {
            let outcome = LeafOutcome::Granted.into();
            let leaf = Leaf { time_ms: n, action: "Sign".into(), outcome, ..Leaf::default() };
            tiles.push(leaf.to_bytes(), &mut files).unwrap();
        }
        let root = tiles.finish(&mut files).unwrap();
        let secret = SigningKey::from_bytes(&[1; 32]);
        let key = LogKey::new("kms/test", secret.verifying_key().as_bytes()).unwrap();
        let head = Checkpoint { origin: "kms/test".into(), size, root };
        let note = head.signed(&key, &secret.sign(head.text().as_bytes()).to_bytes());
        files.put(CHECKPOINT, note.as_bytes()).unwrap();
        files.put(LOG_KEY, key.to_string().as_bytes()).unwrap();
        (folder, path)
    }

    #[test]
    fn an_export_verifies_and_a_changed_one_does_not() {
        let (_folder, path) = export(300);
        let check = || verify(path.clone(), &path.join(LOG_KEY), None).unwrap().accepted;
        assert!(check());
        let bundle = path.join("tile/entries/001.p/44");
        let mut bytes = fs::read(&bundle).unwrap();
        bytes[10] ^= 1;
        fs::write(&bundle, &bytes).unwrap();
        assert!(!check());
        fs::remove_file(&bundle).unwrap();
        assert!(!check());
    }

    #[test]
    fn a_folder_in_use_is_not_exported_into() {
        let (_folder, path) = export(1);
        assert_eq!(Folder::create(&path).err().unwrap().exit_code(), 2);
    }

    #[test]
    fn a_leaf_is_shown_whole() {
        let leaf = Leaf {
            action: "Sign".into(),
            outcome: LeafOutcome::Denied.into(),
            reason: "ROLE_MISSING".into(),
            request_digest: vec![1, 2],
            ..Leaf::default()
        };
        let shown = entry(7, leaf);
        assert_eq!(shown["index"], 7);
        assert_eq!(shown["outcome"], "DENIED");
        assert_eq!(shown["request_digest"], "0102");
        assert_eq!(shown["count"], 1);
    }
}
