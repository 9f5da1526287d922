//! What a start owes the log for leases that were open when the daemon was cut off.

use std::collections::HashSet;

use kms_core::action::Action;
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::permit::lost_lease;
use kms_store::{SCAN_MAX, Store};
use prost::Message as _;

use super::put_on_record;
use crate::context::Context;
use crate::failure::Failure;

/// Ends the leases that no leaf has ended, before anything is served: each was used at most as often as it
/// permits. What comes before the last start was seen to by that start.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn close_lost(cx: &Context) -> Result<(), Failure> {
    let lost = lost(&*cx.store, |opening, index| lost_lease(opening, index, cx.now())).await?;
    if !lost.is_empty() {
        let uses: u64 = lost.iter().map(|leaf| leaf.count).sum();
        tracing::warn!(leases = lost.len(), uses, "uses at most, on leases that were cut off");
    }
    put_on_record(cx, lost).await;
    Ok(())
}

async fn lost(store: &dyn Store, end: impl Fn(&Leaf, u64) -> Leaf) -> Result<Vec<Leaf>, Failure> {
    let (mut ended, mut lost) = (HashSet::new(), Vec::new());
    let size = store.log_size().await;
    let mut oldest = size.saturating_sub(LEAVES_IN_A_LIFE);
    let mut until = size;
    while until > oldest {
        let begin = until.saturating_sub(SCAN_MAX as u64).max(oldest);
        let leaves = read(store, begin, until).await?;
        for (place, bytes) in leaves.iter().enumerate().rev() {
            let index = begin + place as u64;
            let Ok(leaf) = Leaf::decode(bytes.as_slice()) else { continue };
            if is(Action::Start, &leaf) {
                return Ok(lost);
            }
            if is(Action::Stop, &leaf) {
                // All were ended before it, but for one that was on its way.
                oldest = oldest.max(index.saturating_sub(SCAN_MAX as u64));
            }
            if leaf.began_at_index != 0 {
                ended.insert(leaf.began_at_index);
            } else if leaf.lease_uses_max != 0 && !ended.contains(&index) {
                lost.push(end(&leaf, index));
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

fn is(action: Action, leaf: &Leaf) -> bool {
    leaf.outcome() == LeafOutcome::Granted && leaf.action == action.as_str()
}

/// More leaves than can be written while one lease is open: the one thread that writes them takes about
/// five microseconds for each.
const LEAVES_IN_A_LIFE: u64 = 500_000;
