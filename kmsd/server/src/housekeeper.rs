//! What the daemon does because a time has come: it activates, deactivates and destroys versions on
//! their dates, rotates keys by their schedule or when their uses are used up, and names the set of rows
//! in the log.
//!
//! It knows no rules. It reads the marks whose time has come (`rows::Due`), and asks for what is due
//! through the pipeline, as the daemon's own principal: `decide` grants it because it is due, and the
//! log tells of it. A date acts on uses at once, whether the housekeeper has come by or not; it puts the
//! step on record and erases what is destroyed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kms_core::caller::Caller;
use kms_core::id::{Digest, KeyName, Timestamp, VersionName};
use kms_core::key::Version;
use kms_core::lifecycle::{self, Transition};
use kms_proto::v1;
use kms_store::{Batch, Outcome, Write};

use crate::context::{Context, operation_id};
use crate::failure::{Early, Failure};
use crate::ops::{self, Writing};
use crate::pipeline;
use crate::rows::{self, DUE, Due};
use crate::wire::KeyOrVersion;

/// Keeps house until the daemon stops.
pub(crate) async fn run(cx: Arc<Context>, daemon: Caller) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut binding = Binding { next: Instant::now() + BIND_PERIOD, last: None };
    loop {
        beat.tick().await;
        // While the root is closed nothing can be read or decided; the marks wait.
        if cx.is_sealed() {
            continue;
        }
        if let Err(failure) = round(&cx, &daemon).await {
            tracing::warn!(%failure, "what is due could not be read; it is tried again");
        }
        if let Err(failure) = binding.bind_if_due(&cx, &daemon).await {
            tracing::warn!(%failure, "the log does not name the rows; it is tried again");
        }
    }
}

/// When the log named the rows last.
struct Binding {
    next: Instant,
    /// The root that was named, and the size of the log then.
    last: Option<(Digest, u64)>,
}

impl Binding {
    /// Names the set of rows when they have changed, or when the log has grown so that the leaf before
    /// would be looked for for long.
    async fn bind_if_due(&mut self, cx: &Arc<Context>, daemon: &Caller) -> Result<(), Failure> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + BIND_PERIOD;
        let (root, size) = (cx.store.row_set().await?.root, cx.store.log_size().await);
        let is_named = self.last.is_some_and(|(last, at)| last == root && size < at + BIND_LEAVES);
        if !is_named {
            let set = pipeline::serve::<ops::BindRows>(cx, daemon, ()).await?;
            self.last = Some((set.root, size));
        }
        Ok(())
    }
}

/// Looks at everything whose time has come, once, in bounded portions.
async fn round(cx: &Arc<Context>, daemon: &Caller) -> Result<(), Failure> {
    let now = cx.now();
    let mut after: Option<String> = None;
    for _ in 0..PORTIONS_MAX {
        let portion = cx.store.scan(DUE, after.as_deref(), PORTION).await?;
        let Some((last, _)) = portion.last() else { return Ok(()) };
        after = Some(last.clone());
        for (place, _) in &portion {
            // Only the place is read: what is due stands in the row that it names.
            let Some((at, resource)) = Due::read_place(place) else {
                forget(cx, place).await?;
                continue;
            };
            if at > now {
                return Ok(());
            }
            match visit(cx, daemon, resource).await {
                Ok(()) => forget(cx, place).await?,
                Err(Failure::Refused { refusal, .. }) if !is_passing(&refusal) => {
                    // It stands in the log; tried again and again, it would fill it.
                    tracing::warn!(resource, %refusal, "what is due is refused; put off");
                    put_off(cx, resource, now).await?;
                    forget(cx, place).await?;
                }
                Err(failure) => {
                    tracing::warn!(resource, %failure, "what is due failed; it is tried again");
                }
            }
        }
    }
    Ok(())
}

/// Whether the refusal is of the moment: somebody else changed the row just then.
fn is_passing(refusal: &kms_core::permit::Refusal) -> bool {
    use kms_core::permit::Refusal;
    matches!(refusal, Refusal::Sealed | Refusal::Stale)
}

async fn visit(cx: &Arc<Context>, daemon: &Caller, resource: &str) -> Result<(), Failure> {
    if let Ok(version) = resource.parse::<VersionName>() {
        return take_steps(cx, daemon, version).await;
    }
    match resource.parse::<KeyName>() {
        Ok(key) => rotate(cx, daemon, key).await,
        // Nothing that this daemon wrote; there is nothing to look at.
        Err(_) => Ok(()),
    }
}

/// Takes the steps of a version that are due, one after another.
async fn take_steps(cx: &Arc<Context>, daemon: &Caller, name: VersionName) -> Result<(), Failure> {
    for _ in Transition::ALL {
        let loaded = ops::load_version(cx, &KeyOrVersion::Version(name.clone())).await;
        let Some(found) = loaded.map_err(failed)?.found else { return Ok(()) };
        let version = &found.version.value;
        let (etag, name) = (found.version.etag.clone(), name.to_string());
        let request_id = Vec::new();
        match lifecycle::due(version.state, &version.dates, cx.now()) {
            Some(Transition::Activate) => {
                let request = v1::ActivateKeyVersionRequest { name, etag, request_id };
                pipeline::serve::<Writing<ops::ActivateKeyVersion>>(cx, daemon, request).await?;
            }
            Some(Transition::Deactivate) => {
                let request = v1::DeactivateKeyVersionRequest { name, etag, request_id };
                pipeline::serve::<Writing<ops::DeactivateKeyVersion>>(cx, daemon, request).await?;
            }
            Some(Transition::Destroy) => {
                let request = v1::DestroyKeyVersionRequest { name, etag, request_id };
                pipeline::serve::<Writing<ops::DestroyKeyVersion>>(cx, daemon, request).await?;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Makes the next version of a key, if its schedule or the uses of its primary version ask for it.
async fn rotate(cx: &Arc<Context>, daemon: &Caller, name: KeyName) -> Result<(), Failure> {
    let Some((_, key)) = ops::load_key(cx, &name).await.map_err(failed)? else { return Ok(()) };
    let Some(rotation) = key.value.rotation else { return Ok(()) };
    let place = rows::version_place(&name.version(key.value.primary));
    let primary = rows::load::<Version>(cx, &place).await.map_err(failed)?;
    let uses = primary.map_or(0, |primary| primary.value.protections_reserved);
    if rotation.is_due(cx.now()) || rotation.is_used_up(uses) {
        let request =
            v1::CreateKeyVersionRequest { parent: name.to_string(), ..Default::default() };
        pipeline::serve::<ops::CreateKeyVersion>(cx, daemon, request).await?;
    }
    Ok(())
}

/// Marks `resource` to be looked at again later.
async fn put_off(cx: &Context, resource: &str, now: Timestamp) -> Result<(), Failure> {
    let operation_id = operation_id()?;
    let mark = Due { at: now.plus_ms(PUT_OFF_MS), resource: resource.to_owned(), operation_id };
    let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
    let draft = rows::create(&vault, &operation_id, &mark, &[])?;
    commit(cx, Vec::from_iter(draft.write)).await
}

async fn forget(cx: &Context, place: &str) -> Result<(), Failure> {
    commit(cx, vec![Write::Delete { key: place.to_owned() }]).await
}

/// Marks decide nothing, so they change without a leaf of their own.
async fn commit(cx: &Context, writes: Vec<Write>) -> Result<(), Failure> {
    match cx.store.commit(Batch { writes, ..Batch::default() }).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) | Outcome::Unknown => Err(Failure::Unknown),
    }
}

/// What keeps a row from being read: nothing can be asked about it.
fn failed(early: Early) -> Failure {
    match early {
        Early::Fail(failure) => failure,
        Early::Refuse(refusal) => Failure::Tampered(refusal.to_string()),
    }
}

const BEAT: Duration = Duration::from_secs(1);
/// For so long at most what changed is not in a row set that the log names.
const BIND_PERIOD: Duration = Duration::from_secs(10);
/// After so many leaves the rows are named again, though none has changed.
const BIND_LEAVES: u64 = 16_384;
const PORTION: usize = 100;
const PORTIONS_MAX: usize = 100;
const PUT_OFF_MS: u64 = 60 * 60 * 1000;
