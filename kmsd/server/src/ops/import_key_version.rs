//! ImportKeyVersion: the material of a version that waits for it.
//!
//! What is handed in is opened, checked to be a whole and valid key and sealed before the decision is
//! recorded, since the sealed row goes into the same batch; nobody can use it before that batch stands.

use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, GENERIC_SECRET_BYTES_MAX, GENERIC_SECRET_BYTES_MIN, Usage};
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, VersionName};
use kms_core::key::{SealHeader, Version};
use kms_core::lifecycle::Transition;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::service::Ingredients;
use kms_core::transfer::{ImportJob, ImportJobName};
use kms_crypto::vault::{Generated, ImportJobRef, SlotSecret, Vault};
use kms_proto::v1;

use super::changes::change_version_to;
use super::create_key::with_new_slot;
use super::{Found, VersionFacts, is_retry, load_version};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{
    KeyOrVersion, bounded, hex_encode, import_job_name, invalid, version_name, version_out,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ImportKeyVersion {
    name: VersionName,
    etag: String,
    material: Handed,
}

/// What was handed in.
#[derive(Debug)]
enum Handed {
    /// A public key without its private half.
    PublicKey(Vec<u8>),
    /// A key, sealed to an import job.
    Sealed { job: ImportJobName, ciphertext: Vec<u8> },
}

/// The version and the import job, as far as they are there.
#[derive(Debug)]
pub(crate) struct ImportFacts {
    version: VersionFacts,
    job: Option<Stored<ImportJob>>,
    is_retry: bool,
}

impl Operation for ImportKeyVersion {
    type Wire = v1::ImportKeyVersionRequest;
    type Facts = ImportFacts;
    type Prepared = v1::KeyVersion;
    type Reply = v1::ImportKeyVersionResponse;

    const ACTION: Action = Action::ImportKeyVersion;

    fn parse(wire: v1::ImportKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::import_key_version_request::Material as Wire;
        let v1::ImportKeyVersionRequest { name, etag, request_id: _, material } = wire;
        let name = version_name("name", &name, home)?;
        let material = match material {
            Some(Wire::PublicKey(key)) => {
                Handed::PublicKey(bounded("public_key", key, MATERIAL_BYTES_MAX)?)
            }
            Some(Wire::Sealed(v1::SealedMaterial { import_job, ciphertext })) => {
                let job = import_job_name("sealed.import_job", &import_job, home)?;
                if job.ring != name.key.ring {
                    let problem = "the import job is of another ring than the key";
                    return Err(invalid("sealed.import_job", problem));
                }
                let ciphertext = bounded("sealed.ciphertext", ciphertext, MATERIAL_BYTES_MAX)?;
                Handed::Sealed { job, ciphertext }
            }
            None => return Err(invalid("material", "expected a sealed key, or a public key")),
        };
        Ok(Self { name, etag, material })
    }

    fn request_id(wire: &v1::ImportKeyVersionRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Version(self.name.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
    ) -> Result<ImportFacts, Early> {
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        let version = load_version(cx, &KeyOrVersion::Version(self.name.clone())).await?;
        let moved = version.found.as_ref().is_some_and(|found| found.version.etag != self.etag);
        if moved && !self.etag.is_empty() && !is_retry {
            return Err(Refusal::Stale.into());
        }
        let job = match &self.material {
            Handed::Sealed { job, .. } => rows::load(cx, &rows::import_job_place(job)).await?,
            Handed::PublicKey(_) => None,
        };
        Ok(ImportFacts { version, job, is_retry })
    }

    fn resource(&self, _facts: &ImportFacts) -> Resource {
        self.named()
    }

    fn ingredients(&self, facts: &ImportFacts) -> Ingredients {
        let method = facts.job.as_ref().map(|job| job.value.method);
        method.map(Ingredients::import).unwrap_or_default()
    }

    fn subject<'a>(&self, facts: &'a ImportFacts) -> Subject<'a> {
        facts.version.subject((!facts.is_retry).then_some(Transition::CompleteImport))
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &ImportFacts,
    ) -> Result<(v1::KeyVersion, Vec<Draft>), Early> {
        let found = facts.version.found()?;
        if facts.is_retry {
            let before = &found.version;
            return Ok((version_out(&before.value, &before.etag, stamp.now), Vec::new()));
        }
        let vault = cx.vault()?;
        let make = |secret: &SlotSecret| match &self.material {
            Handed::PublicKey(key) => public_half(&vault, found, key),
            Handed::Sealed { ciphertext, .. } => {
                let job = facts.job.as_ref().ok_or(Refusal::ImportJobExpired)?;
                if job.value.expires_at <= stamp.now {
                    return Err(Refusal::ImportJobExpired.into());
                }
                let reference = ImportJobRef {
                    name: &job.value.name,
                    method: job.value.method,
                    sealed: &job.sealed,
                };
                // RSA takes milliseconds; other tasks move to another worker meanwhile.
                tokio::task::block_in_place(|| {
                    let incoming = vault.open_import(reference, ciphertext)?;
                    let header = measured(found, incoming.length_bytes())?;
                    let made = vault.seal_incoming(&incoming, &header, secret)?;
                    Ok::<_, Early>((header, made))
                })
            }
        };
        let (slot, (header, made)) = with_new_slot(cx, make).await?;
        let slot = Some(slot);
        let undo_window_ms = cx.lifecycle.undo_window_ms;
        let before = &found.version;
        let stepped =
            before.value.after_step(Transition::CompleteImport, stamp.now, undo_window_ms);
        let after = Version {
            header,
            public_key: hex_encode(&made.public_key),
            slot,
            ..stepped.map_err(Refusal::from)?
        };
        let mut drafts = change_version_to(cx, stamp, Self::ACTION, before, &after, &made.sealed)?;
        let etag = drafts.first().map(|row| row.etag.clone()).unwrap_or_default();
        if let Some(row) = drafts.first_mut() {
            row.slot = slot;
        }
        Ok((version_out(&after, &etag, stamp.now), drafts))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _facts: ImportFacts,
        version: v1::KeyVersion,
        audit: v1::AuditReference,
    ) -> Result<v1::ImportKeyVersionResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::ImportKeyVersionResponse { version: Some(version), audit: Some(audit) })
    }
}

/// The header of the version, with the length of what came in, where each key has its own.
fn measured(found: &Found, length_bytes: usize) -> Result<SealHeader, Early> {
    let header = found.version.value.header.clone();
    let length_bytes = match header.algorithm {
        Algorithm::GenericSecret => {
            let bounds = GENERIC_SECRET_BYTES_MIN..=GENERIC_SECRET_BYTES_MAX;
            if !bounds.contains(&length_bytes) {
                let problem = format!("a generic secret has {bounds:?} bytes, not {length_bytes}");
                return Err(invalid("sealed.ciphertext", problem).into());
            }
            length_bytes
        }
        Algorithm::OpaqueSecret => length_bytes,
        algorithm => algorithm.secret_bytes().unwrap_or_default(),
    };
    let length_bytes = u32::try_from(length_bytes);
    let length_bytes = length_bytes.map_err(|_| Failure::Bug("a key of more than 4 GiB"))?;
    Ok(SealHeader { length_bytes, ..header })
}

/// A version of which only the public half is here. It can only do what takes no more.
fn public_half(
    vault: &Vault,
    found: &Found,
    public_key: &[u8],
) -> Result<(SealHeader, Generated), Early> {
    let header = found.version.value.header.clone();
    let public = [Usage::Encapsulate, Usage::Encrypt, Usage::Verify, Usage::Wrap].as_slice();
    if let Some(usage) = header.usages.iter().find(|usage| !public.contains(usage)) {
        let problem = format!("{usage} takes the private key; make the key without that usage");
        return Err(invalid("public_key", problem).into());
    }
    vault.check_public_key(header.algorithm, public_key)?;
    Ok((header, Generated { sealed: Vec::new(), public_key: public_key.to_vec() }))
}

/// Longest material: an opaque secret, and what sealing adds.
const MATERIAL_BYTES_MAX: usize = 68 * 1024;
