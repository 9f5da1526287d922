//! The requests that most tests make, each as short as what it means.

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};

use crate::Daemon;

/// A request for the key `name`, short or full.
#[must_use]
pub fn key(name: &str, algorithm: Algorithm) -> v1::CreateKeyRequest {
    let key = v1::Key { name: name.to_owned(), algorithm: algorithm.into(), ..Default::default() };
    v1::CreateKeyRequest { key: Some(key), ..Default::default() }
}

/// Makes the key of `request` and gives its first version.
///
/// # Panics
/// When it is not made.
pub async fn create(client: &Client, request: v1::CreateKeyRequest) -> v1::KeyVersion {
    client.call(client.keys().create_key(request)).await.unwrap().version.unwrap()
}

/// Makes a key and gives its first version.
///
/// # Panics
/// When it is not made.
pub async fn create_key(client: &Client, name: &str, algorithm: Algorithm) -> v1::KeyVersion {
    create(client, key(name, algorithm)).await
}

/// Signs `message`.
///
/// # Errors
/// As the daemon answers.
pub async fn sign(
    client: &Client,
    name: &str,
    message: &[u8],
) -> Result<v1::SignResponse, ClientError> {
    let data = Some(v1::sign_request::Data::Message(message.to_vec()));
    let request = v1::SignRequest { name: name.to_owned(), data, ..Default::default() };
    client.call(client.crypto().sign(request)).await
}

/// Takes one step of a version's life; `transition` is the gRPC method without `KeyVersion`, or `Undo`.
///
/// # Errors
/// As the daemon answers.
///
/// # Panics
/// When there is no such step.
pub async fn step(
    client: &Client,
    transition: &str,
    name: &str,
) -> Result<v1::KeyVersion, ClientError> {
    macro_rules! step {
        ($method:ident, $request:ident) => {{
            let request = v1::$request { name: name.to_owned(), ..Default::default() };
            client.call(client.keys().$method(request)).await?.version
        }};
    }
    let version = match transition {
        "Activate" => step!(activate_key_version, ActivateKeyVersionRequest),
        "Compromise" => step!(compromise_key_version, CompromiseKeyVersionRequest),
        "Deactivate" => step!(deactivate_key_version, DeactivateKeyVersionRequest),
        "Destroy" => step!(destroy_key_version, DestroyKeyVersionRequest),
        "Disable" => step!(disable_key_version, DisableKeyVersionRequest),
        "Enable" => step!(enable_key_version, EnableKeyVersionRequest),
        "Restore" => step!(restore_key_version, RestoreKeyVersionRequest),
        "Resume" => step!(resume_key_version, ResumeKeyVersionRequest),
        "ScheduleDestroy" => {
            step!(schedule_destroy_key_version, ScheduleDestroyKeyVersionRequest)
        }
        "Suspend" => step!(suspend_key_version, SuspendKeyVersionRequest),
        "Undo" => step!(undo_key_version_step, UndoKeyVersionStepRequest),
        other => panic!("no step {other}"),
    };
    Ok(version.unwrap())
}

/// A version as it stands.
///
/// # Panics
/// When it is not there.
pub async fn version(client: &Client, name: &str) -> v1::KeyVersion {
    let request = v1::GetKeyVersionRequest { name: name.to_owned() };
    client.call(client.keys().get_key_version(request)).await.unwrap().version.unwrap()
}

/// A key as it stands.
///
/// # Errors
/// As the daemon answers.
pub async fn get_key(client: &Client, name: &str) -> Result<v1::Key, ClientError> {
    let request = v1::GetKeyRequest { name: name.to_owned() };
    Ok(client.call(client.keys().get_key(request)).await?.key.unwrap())
}

/// Changes `fields` of the key `name`, as it stands now.
///
/// # Errors
/// As the daemon answers.
pub async fn update(
    client: &Client,
    name: &str,
    fields: &[&str],
    change: impl FnOnce(&mut v1::Key),
) -> Result<v1::Key, ClientError> {
    let mut key = get_key(client, name).await?;
    change(&mut key);
    let request = v1::UpdateKeyRequest {
        key: Some(key),
        update_fields: fields.iter().map(ToString::to_string).collect(),
        request_id: Vec::new(),
    };
    Ok(client.call(client.keys().update_key(request)).await?.key.unwrap())
}

/// Has the officer of `daemon` trust the key `name`, so that it may wrap others.
///
/// # Panics
/// When that is refused.
pub async fn trust(daemon: &Daemon, name: &str) {
    let officer = daemon.officer_client().await;
    let v1::Key { name, etag, .. } = get_key(&officer, name).await.unwrap();
    let request = v1::SetKeyTrustedRequest { name, etag, trusted: true, ..Default::default() };
    officer.call(officer.keys().set_key_trusted(request)).await.unwrap();
}

/// Has the officer of `daemon` make a compatible ring, in which all mechanisms are taken.
///
/// # Panics
/// When it is not made.
pub async fn compatible_ring(daemon: &Daemon, name: &str) {
    let officer = daemon.officer_client().await;
    let policy = v1::RingPolicy { kind: v1::RingKind::Compatible.into(), ..Default::default() };
    let (name, policy) = (name.to_owned(), Some(policy));
    let request = v1::CreateKeyRingRequest { name, policy, ..Default::default() };
    officer.call(officer.keys().create_key_ring(request)).await.unwrap();
}

/// Makes an import job in `ring`.
///
/// # Panics
/// When it is not made.
pub async fn import_job(client: &Client, ring: &str, method: v1::ImportMethod) -> v1::ImportJob {
    let (parent, method) = (ring.to_owned(), method.into());
    let request = v1::CreateImportJobRequest { parent, method, ..Default::default() };
    client.call(client.keys().create_import_job(request)).await.unwrap().job.unwrap()
}

/// A quorum of `n` of `members` (principal names) over `guards`.
#[must_use]
pub fn quorum(guards: &[&str], n: u32, members: &[&str]) -> v1::QuorumPolicy {
    use v1::approver::Approver;
    let member =
        |name: &&str| v1::Approver { approver: Some(Approver::Principal((*name).to_owned())) };
    v1::QuorumPolicy {
        guards: guards.iter().map(ToString::to_string).collect(),
        approvers: Some(v1::Approvers { n, members: members.iter().map(member).collect() }),
    }
}

/// What must be proven for a release: a guest of that measurement.
#[must_use]
pub fn requirement(measurement: &[u8; 48]) -> v1::ReleaseRequirement {
    let digits: String = measurement.iter().map(|byte| format!("{byte:02x}")).collect();
    v1::ReleaseRequirement {
        kinds: vec!["snp".to_owned()],
        may_be_unestablished: vec!["revocation".to_owned()],
        policy: format!(
            "package policy\n\ndefault allow := false\n\nallow if {{\n\tinput.measurement == \"{digits}\"\n}}\n"
        ),
        free_usages: Vec::new(),
    }
}
