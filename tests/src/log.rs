//! The audit log as an auditor takes it away.

use std::collections::BTreeMap;

use kms_client::{Client, v1};
use kms_core::audit::{Leaf, LeafOutcome, tile};
use kms_verify::{LogKey, LogReport};

use crate::Refusal;

/// An exported log: head and leaves in the tlog-tiles layout, and the key to verify them with.
#[derive(Clone, Debug)]
pub struct Export {
    /// The files, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The log's public key.
    pub key: LogKey,
    /// How many leaves the head speaks of.
    pub size: u64,
}

impl Export {
    /// Fetches head and leaves.
    ///
    /// # Panics
    /// When the daemon does not answer as it should.
    pub async fn fetch(client: &Client) -> Self {
        let head = client.call(client.audit().get_checkpoint(v1::GetCheckpointRequest {})).await;
        let v1::GetCheckpointResponse { checkpoint, log_key, audit: _ } = head.unwrap();
        let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
        let mut files = BTreeMap::from([("checkpoint".to_owned(), checkpoint.into_bytes())]);
        for number in 0..size.div_ceil(tile::TILE_WIDTH) {
            let width = tile::width(0, number, size);
            let leaves = page(client, number * tile::TILE_WIDTH, width).await;
            let bundle = tile::bundle(leaves.iter().map(Vec::as_slice)).unwrap();
            files.insert(tile::path(None, number, width), bundle);
        }
        Self { files, key: log_key.parse().unwrap(), size }
    }

    /// Every leaf, in order.
    ///
    /// # Panics
    /// When a bundle is damaged.
    #[must_use]
    pub fn leaves(&self) -> Vec<Leaf> {
        let bundles = self.files.iter().filter(|(path, _)| path.starts_with("tile/entries/"));
        let mut numbered: Vec<(u64, &Vec<u8>)> = bundles
            .map(|(path, bytes)| (path["tile/entries/".len()..][..3].parse().unwrap(), bytes))
            .collect();
        numbered.sort();
        let leaves = numbered.iter().flat_map(|(_, bytes)| tile::unbundle(bytes).unwrap());
        leaves.map(|leaf| Leaf::from_bytes(leaf).unwrap()).collect()
    }

    /// The signed head.
    ///
    /// # Panics
    /// When it is no text.
    #[must_use]
    pub fn checkpoint(&self) -> String {
        String::from_utf8(self.files["checkpoint"].clone()).unwrap()
    }

    /// What the offline verifier says of it.
    ///
    /// # Panics
    /// Never: files in memory can be read.
    #[must_use]
    pub fn verify(&self, earlier: Option<&str>) -> LogReport {
        kms_verify::verify_log(&mut self.files.clone(), &self.key, earlier).unwrap()
    }

    /// Expects that it verifies, and has grown from `earlier`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_whole(&self, earlier: Option<&str>) {
        let report = self.verify(earlier);
        assert!(report.accepted, "{:?}", report.reasons);
        assert_eq!(report.leaves, self.size);
    }
}

/// Up to `width` encoded leaves from `first_index` on.
async fn page(client: &Client, first_index: u64, width: u64) -> Vec<Vec<u8>> {
    let page_size = i32::try_from(width).unwrap();
    let request = v1::ListAuditLeavesRequest { first_index, page_size };
    client.call(client.audit().list_audit_leaves(request)).await.unwrap().leaves
}

/// The leaf at `index`, read by an auditor.
///
/// # Panics
/// When there is none.
pub async fn leaf(auditor: &Client, index: u64) -> Leaf {
    Leaf::from_bytes(&page(auditor, index, 1).await[0]).unwrap()
}

/// Expects that `refusal` stands in the log as one of `action`, and gives its leaf.
///
/// # Panics
/// When it does not.
pub async fn assert_recorded(auditor: &Client, refusal: &Refusal, action: &str) -> Leaf {
    let index = refusal.audit_index.unwrap_or_else(|| panic!("not on record: {refusal:?}"));
    let leaf = leaf(auditor, index).await;
    assert_eq!(leaf.outcome(), LeafOutcome::Denied, "{refusal:?}");
    assert_eq!((leaf.action.as_str(), leaf.reason.as_str()), (action, refusal.reason.as_str()));
    leaf
}
