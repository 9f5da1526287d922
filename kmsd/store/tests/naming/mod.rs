//! What the daemon does around a store, as far as its files are concerned: it vouches for what is written
//! and names the rows in the log every now and then. A start that refuses rows which it has itself
//! acknowledged would be as bad as one that lost them.

use std::sync::Arc;
use std::time::Duration;

use kms_core::action::Action;
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::id::Digest;
use kms_store::{Batch, Outcome, Store, StoreError, Voucher};

struct Word;

impl Voucher for Word {
    fn vouch(&self, digest: &Digest) -> [u8; 32] {
        Digest::of(&[b"the secret of this test", digest.as_bytes()]).0
    }

    fn is_vouched(&self, digest: &Digest, vouch: &[u8; 32]) -> bool {
        self.vouch(digest) == *vouch
    }
}

/// Holds the rows against the log, as a start does, and vouches from then on.
pub(crate) async fn begin(store: &dyn Store) -> Result<(), StoreError> {
    store.begin_vouching(Arc::new(Word)).await
}

/// Names the rows in the log, again and again.
pub(crate) async fn name_rows_forever(store: Arc<dyn Store>) {
    loop {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let Ok(set) = store.row_set().await else { return };
        let leaf = Leaf {
            action: Action::BindRows.as_str().to_owned(),
            outcome: LeafOutcome::Granted.into(),
            row_set_root: set.root.as_bytes().to_vec(),
            row_set_sequence: set.sequence,
            ..Leaf::default()
        };
        let (leaves, binds_rows) = (vec![leaf.to_bytes()], Some(set.sequence));
        let committed = store.commit(Batch { leaves, binds_rows, ..Batch::default() }).await;
        if !matches!(committed, Ok(Outcome::Committed(_))) {
            return;
        }
    }
}
