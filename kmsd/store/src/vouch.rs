//! Who vouches for what is written, so that whoever rewrites the files is found out.
//!
//! The store knows no key. Checksums, hashes and leaves can all be made anew by somebody at the disk;
//! what he cannot make is the word of a [`Voucher`], behind which the daemon holds a secret. While there
//! is one, every record and every block of a snapshot carries its word, and from the first one on no row
//! changes without it. What is written while there is none says nothing that would be worth forging.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kms_core::audit::{Leaf, RowSet};
use kms_core::id::Digest;

use crate::StoreError;

/// Vouches for digests, with a secret that whoever can write the files lacks.
pub trait Voucher: Send + Sync {
    /// The word for a digest.
    fn vouch(&self, digest: &Digest) -> [u8; 32];

    /// Whether this is the word for the digest.
    fn is_vouched(&self, digest: &Digest, vouch: &[u8; 32]) -> bool;
}

/// Reads which row set a leaf names.
pub(crate) fn named_by(leaf: &[u8]) -> Option<RowSet> {
    Leaf::from_bytes(leaf).ok()?.row_set()
}

/// Why a batch cannot have been written while nobody vouched, rows apart; `None` when it can. The
/// committer writes no other while nobody vouches, and no other is believed without somebody's word.
pub(crate) fn needs_word(leaves: &[Vec<u8>], has_name: bool) -> Option<String> {
    if has_name {
        return Some("names a request, so that it is not done again".to_owned());
    }
    leaves.iter().find_map(|bytes| match Leaf::from_bytes(bytes) {
        Ok(leaf) if leaf.can_arise_sealed() => None,
        Ok(leaf) => Some(format!("says of {} on {} that it was done", leaf.action, leaf.resource)),
        Err(_) => Some("has a leaf that cannot be read".to_owned()),
    })
}

/// Who vouches at the moment.
#[derive(Default)]
pub(crate) struct Vouching {
    voucher: RwLock<Option<Arc<dyn Voucher>>>,
    is_required: AtomicBool,
}

impl Vouching {
    /// From now on nothing is written without somebody's word but what cannot have one.
    pub(crate) fn require(&self) {
        self.is_required.store(true, Ordering::Release);
    }

    pub(crate) fn is_required(&self) -> bool {
        self.is_required.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, voucher: Option<Arc<dyn Voucher>>) {
        if voucher.is_some() {
            self.require();
        }
        *self.voucher.write().unwrap_or_else(PoisonError::into_inner) = voucher;
    }

    pub(crate) fn voucher(&self) -> Option<Arc<dyn Voucher>> {
        self.voucher.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody gives his word, or nobody has to.
    pub(crate) fn has_word(&self) -> bool {
        self.voucher().is_some() || !self.is_required()
    }

    /// The word for a digest; zeros as long as nobody ever vouched.
    ///
    /// # Errors
    /// [`StoreError::NotVouched`] when somebody did and does not any more.
    pub(crate) fn vouch(&self, digest: &Digest) -> Result<[u8; 32], StoreError> {
        match self.voucher() {
            Some(voucher) => Ok(voucher.vouch(digest)),
            None if self.is_required() => Err(StoreError::NotVouched),
            None => Ok([0; 32]),
        }
    }
}
