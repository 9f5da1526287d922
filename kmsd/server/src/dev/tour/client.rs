//! Small things that the tour's steps share.

use std::collections::BTreeMap;
use std::convert::Infallible;

use kms_client::{Client, ClientError};
use kms_core::audit::tile;
use kms_proto::v1;
use kms_verify::Source;

use super::TourError;

/// What the daemon said when it refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) message: String,
}

/// Insists that the daemon refused for `expected`.
pub(super) fn expect_refusal<T>(
    answer: Result<T, ClientError>,
    expected: &str,
) -> Result<Refusal, TourError> {
    match answer {
        Ok(_) => Err(format!("expected {expected}, and it was done").into()),
        Err(ClientError::Refused { reason, message, .. }) if reason == expected => {
            Ok(Refusal { reason, message })
        }
        Err(error) => Err(format!("expected {expected}, saw: {error}").into()),
    }
}

/// A name that no earlier tour has used.
pub(super) fn name(prefix: &str) -> Result<String, TourError> {
    let random: [u8; 4] = crate::context::random()?;
    Ok(format!("{prefix}-{}", crate::wire::hex_encode(&random)))
}

/// The audit log as `kmsctl audit export` writes it, in memory.
pub(super) struct Exported(BTreeMap<String, Vec<u8>>);

impl Exported {
    /// Fetches head and leaves.
    pub(super) async fn fetch(client: &Client) -> Result<Self, TourError> {
        let head = client.call(client.audit().get_checkpoint(v1::GetCheckpointRequest {})).await?;
        let size: u64 = head.checkpoint.lines().nth(1).unwrap_or_default().parse()?;
        let mut files = BTreeMap::from([("checkpoint".to_owned(), head.checkpoint.into_bytes())]);
        for number in 0..size.div_ceil(tile::TILE_WIDTH) {
            let (first_index, width) = (number * tile::TILE_WIDTH, tile::width(0, number, size));
            let page_size = i32::try_from(width)?;
            let request = v1::ListAuditLeavesRequest { first_index, page_size };
            let page = client.call(client.audit().list_audit_leaves(request)).await?;
            let bundle = tile::bundle(page.leaves.iter().map(Vec::as_slice));
            let bundle = bundle.ok_or("a leaf that is too long")?;
            files.insert(tile::path(None, number, width), bundle);
        }
        Ok(Self(files))
    }
}

impl Source for Exported {
    type Error = Infallible;

    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(path).cloned())
    }
}
