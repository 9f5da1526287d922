//! What a change of a version or key writes besides its row: its history, the marks of when something
//! is due, the order to erase a slot. All in one batch with the row.

use kms_core::action::Action;
use kms_core::id::{KeyName, Timestamp};
use kms_core::key::{Key, Version};
use kms_core::lifecycle::State;
use kms_crypto::vault::Vault;
use kms_store::{Batch, Outcome, Write};

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::Stamp;
use crate::rows::{self, Draft, Due, Erasure, Event, Record as _, Stored};

/// Drafts `after` in place of `before`, with what belongs to the change. The first draft is the row.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn change_version(
    cx: &Context,
    stamp: &Stamp,
    action: Action,
    before: &Stored<Version>,
    after: &Version,
) -> Result<Vec<Draft>, Early> {
    let ends = erased(&before.value, after).is_some();
    let sealed = if ends { &[][..] } else { &before.sealed };
    change_version_to(cx, stamp, action, before, after, sealed)
}

/// As [`change_version`], with other material.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn change_version_to(
    cx: &Context,
    stamp: &Stamp,
    action: Action,
    before: &Stored<Version>,
    after: &Version,
    sealed: &[u8],
) -> Result<Vec<Draft>, Early> {
    let vault = cx.vault()?;
    let mut drafts = vec![rows::replace(&vault, &stamp.operation_id, after, sealed, before)?];
    let name = &after.header.version;
    // Somebody sees what a date brought about as a state that was there before.
    let from = if stamp.by_daemon { before.value.state } else { before.value.state_at(stamp.now) };
    let step = Some((name.number, Some(from), after.state));
    drafts.push(event(&vault, stamp, action, &name.key, step)?);
    if let Some(at) = after.due_at().filter(|_| after.due_at() != before.value.due_at()) {
        drafts.push(due(&vault, stamp, at, name.to_string())?);
    }
    if let Some(slot) = erased(&before.value, after) {
        drafts.push(rows::create(&vault, &stamp.operation_id, &Erasure { slot }, &[])?);
    }
    Ok(drafts)
}

/// Drafts `after` in place of `before`, with what belongs to the change. The first draft is the row.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn change_key(
    cx: &Context,
    stamp: &Stamp,
    action: Action,
    before: &Stored<Key>,
    after: &Key,
) -> Result<Vec<Draft>, Early> {
    let vault = cx.vault()?;
    let mut drafts = vec![rows::replace(&vault, &stamp.operation_id, after, &[], before)?];
    drafts.push(event(&vault, stamp, action, &after.name, None)?);
    if after.rotation != before.value.rotation {
        drafts.extend(rotation_due(&vault, stamp, after)?);
    }
    Ok(drafts)
}

/// The slot whose erasure completes the change, if it is the end of the version.
pub(crate) fn erased(before: &Version, after: &Version) -> Option<u64> {
    let ends = before.state != State::Destroyed && after.state == State::Destroyed;
    before.slot.filter(|_| ends)
}

/// Erases the slot of a version whose destruction is on record.
///
/// # Errors
/// When the store fails; the order to erase stands, and the next start carries it out.
pub(crate) async fn erase(cx: &Context, slot: u64) -> Result<(), Failure> {
    cx.store.erase_slot(slot).await?;
    if let Ok(vault) = cx.vault() {
        vault.forget_opened_keys();
    }
    // The order is carried out. Were the daemon to stop here, the next start would do it again.
    let writes = vec![Write::Delete { key: Erasure { slot }.place() }];
    match cx.store.commit(Batch { writes, ..Batch::default() }).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) | Outcome::Unknown => Err(Failure::Unknown),
    }
}

/// Erases slots whose versions did not come about, so that nothing of them is left.
///
/// # Errors
/// When the store fails.
pub(crate) async fn free(cx: &Context, slots: &[u64]) -> Result<(), Failure> {
    for slot in slots {
        cx.store.erase_slot(*slot).await?;
    }
    Ok(())
}

/// Drafts the history of one operation on `key`; `step` is the version's number, and where it stood
/// before and after.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn event(
    vault: &Vault,
    stamp: &Stamp,
    action: Action,
    key: &KeyName,
    step: Option<(u32, Option<State>, State)>,
) -> Result<Draft, Failure> {
    let event = Event {
        key: key.clone(),
        at: stamp.now,
        operation_id: stamp.operation_id,
        actor: stamp.actor.clone(),
        action,
        version: step.map(|(number, _, _)| number),
        from: step.and_then(|(_, from, _)| from),
        to: step.map(|(_, _, to)| to),
    };
    rows::create(vault, &stamp.operation_id, &event, &[])
}

/// Drafts the mark that `resource` (full name) is to be looked at when `at` has come.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn due(
    vault: &Vault,
    stamp: &Stamp,
    at: Timestamp,
    resource: String,
) -> Result<Draft, Failure> {
    let mark = Due { at, resource, operation_id: stamp.operation_id };
    rows::create(vault, &stamp.operation_id, &mark, &[])
}

/// Drafts the mark for the next rotation of `key`, if it has a schedule or a count.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn rotation_due(
    vault: &Vault,
    stamp: &Stamp,
    key: &Key,
) -> Result<Option<Draft>, Failure> {
    let Some(rotation) = key.rotation else { return Ok(None) };
    // Where uses are counted, they may be used up already.
    let at = if rotation.uses_max == 0 { rotation.next_at } else { stamp.now };
    due(vault, stamp, at, key.name.to_string()).map(Some)
}
