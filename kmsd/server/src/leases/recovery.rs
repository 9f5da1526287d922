//! What a start owes the log for leases that were open when the daemon was cut off.

use std::collections::HashSet;

use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::permit::{LEASE_LOST, lost_lease};
use kms_store::{SCAN_MAX, Store};
use prost::Message as _;

use super::{LIFE, pay};
use crate::context::Context;
use crate::failure::Failure;

/// Ends the leases that no leaf has ended, before anything is served: each was used at most as often as it
/// permits.
///
/// # Errors
/// When the log cannot be read, or not be written: nothing is served then.
pub(crate) async fn close_lost(cx: &Context) -> Result<(), Failure> {
    let lost = lost(&*cx.store, |opening, index| lost_lease(opening, index, cx.now())).await?;
    if !lost.is_empty() {
        let uses: u64 = lost.iter().map(|leaf| leaf.count).sum();
        tracing::warn!(leases = lost.len(), uses, "uses at most, on leases that were cut off");
    }
    cx.leases.owe(lost);
    pay(&*cx.store, &cx.leases).await
}

async fn lost(store: &dyn Store, end: impl Fn(&Leaf, u64) -> Leaf) -> Result<Vec<Leaf>, Failure> {
    let (mut ended, mut lost) = (HashSet::new(), Vec::new());
    let size = store.log_size().await;
    let (mut until, mut newest_ms) = (size, None);
    while until > 0 {
        let begin = until.saturating_sub(SCAN_MAX as u64);
        let leaves = read(store, begin, until).await?;
        for (place, bytes) in leaves.iter().enumerate().rev() {
            let index = begin + place as u64;
            let Ok(leaf) = Leaf::decode(bytes.as_slice()) else { continue };
            // What could be written while sealed, anybody could write who has the disk: it ends neither the
            // search nor, unless it says the worst, a lease.
            if !leaf.can_arise_sealed() {
                let newest_ms = *newest_ms.get_or_insert(leaf.time_ms);
                let is_old = leaf.time_ms.saturating_add(LIVES_MS) < newest_ms;
                if is_old && size - index > LEAVES_MIN {
                    return Ok(lost);
                }
            }
            match leaf.outcome() {
                LeafOutcome::Finished if leaf.began_at_index != 0 => {
                    ended.insert((leaf.began_at_index, None));
                }
                LeafOutcome::BrokenOff if leaf.reason == LEASE_LOST => {
                    ended.insert((leaf.began_at_index, Some(leaf.count)));
                }
                LeafOutcome::Granted if leaf.lease_uses_max != 0 => {
                    let is_ended = ended.contains(&(index, None))
                        || ended.contains(&(index, Some(leaf.lease_uses_max)));
                    if !is_ended {
                        lost.push(end(&leaf, index));
                    }
                }
                _ => {}
            }
        }
        until = begin;
    }
    Ok(lost)
}

/// The leaves from `begin` to `until`, whose pages may be shorter than asked.
async fn read(store: &dyn Store, begin: u64, until: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let mut leaves = Vec::new();
    loop {
        let next = begin + leaves.len() as u64;
        let limit = usize::try_from(until.saturating_sub(next)).unwrap_or(SCAN_MAX);
        if limit == 0 {
            return Ok(leaves);
        }
        let page = store.leaves(next, limit).await?;
        if page.is_empty() {
            return Err(Failure::Bug("the log ends before its end"));
        }
        leaves.extend(page);
    }
}

/// What is older than the log's newest leaf by so much began, and ended, long before: thirty times the life
/// of a lease.
const LIVES_MS: u64 = 30 * LIFE.as_millis() as u64;
/// So many leaves are looked at whatever their times are: a clock may have been set.
const LEAVES_MIN: u64 = 20_000;
