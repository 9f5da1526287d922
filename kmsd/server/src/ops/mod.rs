//! The operations, one file each, and what several of them load.

mod add_credential;
mod agree_key;
mod approve_proposal;
mod bind_rows;
mod cancel_proposal;
mod changes;
mod compromise_key_version;
mod copy_key;
mod create_binding;
mod create_import_job;
mod create_key;
mod create_key_ring;
mod create_key_version;
mod create_object_key;
mod create_proposal;
mod create_release_challenge;
mod create_user;
mod decapsulate_key;
mod decrypt;
mod delete_binding;
mod delete_key;
mod delete_user;
mod derive_key;
mod destroy_object;
mod digest;
mod disable_user;
mod enable_user;
mod encapsulate_key;
mod encrypt;
mod enrolment;
mod execute_proposal;
mod export_key_version;
mod find_objects;
mod generate_data_key;
mod generate_random;
mod get_checkpoint;
mod get_import_job;
mod get_inclusion_proof;
mod get_key;
mod get_key_ring;
mod get_key_statement;
mod get_key_version;
mod get_proposal;
mod get_public_key;
mod get_seal_status;
mod get_user;
mod guarded_use;
mod import_key_version;
mod list_audit_leaves;
mod list_bindings;
mod list_key_history;
mod list_key_rings;
mod list_key_versions;
mod list_keys;
mod list_proposals;
mod list_tokens;
mod list_users;
mod login_token;
mod mac_sign;
mod mac_verify;
mod making;
mod proposals;
mod provider_status;
mod re_encrypt;
mod reading;
mod release_key;
mod revoke_credential;
mod schedule_destroy_key_version;
mod seal;
mod set_key_certificate;
mod set_key_ring_policy;
mod set_key_trusted;
mod set_key_version_dates;
mod set_token_pin;
mod sign;
mod start;
mod step_key_version;
mod stream;
mod switch_key_version;
mod target;
mod unseal;
mod unwrap_key;
mod update_key;
mod using;
mod verify;
mod who_am_i;
mod wrap_key;
mod writing;

pub(crate) use add_credential::AddCredential;
pub(crate) use agree_key::AgreeKey;
pub(crate) use approve_proposal::ApproveProposal;
pub(crate) use bind_rows::{BindRows, bind_rows_at_the_end};
pub(crate) use cancel_proposal::CancelProposal;
pub(crate) use changes::{erase, free};
pub(crate) use compromise_key_version::CompromiseKeyVersion;
pub(crate) use copy_key::CopyKey;
pub(crate) use create_binding::CreateBinding;
pub(crate) use create_import_job::CreateImportJob;
pub(crate) use create_key::CreateKey;
pub(crate) use create_key_ring::CreateKeyRing;
pub(crate) use create_key_version::CreateKeyVersion;
pub(crate) use create_object_key::CreateObjectKey;
pub(crate) use create_proposal::CreateProposal;
pub(crate) use create_release_challenge::CreateReleaseChallenge;
pub(crate) use create_user::CreateUser;
pub(crate) use decapsulate_key::DecapsulateKey;
pub(crate) use decrypt::Decrypt;
pub(crate) use delete_binding::DeleteBinding;
pub(crate) use delete_key::DeleteKey;
pub(crate) use delete_user::DeleteUser;
pub(crate) use derive_key::DeriveKey;
pub(crate) use destroy_object::DestroyObject;
pub(crate) use digest::Digest;
pub(crate) use disable_user::DisableUser;
pub(crate) use enable_user::EnableUser;
pub(crate) use encapsulate_key::EncapsulateKey;
pub(crate) use encrypt::Encrypt;
pub(crate) use execute_proposal::ExecuteProposal;
pub(crate) use export_key_version::ExportKeyVersion;
pub(crate) use find_objects::FindObjects;
pub(crate) use generate_data_key::GenerateDataKey;
pub(crate) use generate_random::GenerateRandom;
pub(crate) use get_checkpoint::{GetCheckpoint, signed_checkpoint};
pub(crate) use get_import_job::GetImportJob;
pub(crate) use get_inclusion_proof::GetInclusionProof;
pub(crate) use get_key::GetKey;
pub(crate) use get_key_ring::GetKeyRing;
pub(crate) use get_key_statement::GetKeyStatement;
pub(crate) use get_key_version::GetKeyVersion;
pub(crate) use get_proposal::GetProposal;
pub(crate) use get_public_key::GetPublicKey;
pub(crate) use get_seal_status::GetSealStatus;
pub(crate) use get_user::GetUser;
pub(crate) use import_key_version::ImportKeyVersion;
pub(crate) use list_audit_leaves::ListAuditLeaves;
pub(crate) use list_bindings::ListBindings;
pub(crate) use list_key_history::ListKeyHistory;
pub(crate) use list_key_rings::ListKeyRings;
pub(crate) use list_key_versions::ListKeyVersions;
pub(crate) use list_keys::ListKeys;
pub(crate) use list_proposals::ListProposals;
pub(crate) use list_tokens::ListTokens;
pub(crate) use list_users::ListUsers;
pub(crate) use login_token::{Login, LoginToken};
pub(crate) use mac_sign::MacSign;
pub(crate) use mac_verify::MacVerify;
pub(crate) use provider_status::{GetProviderStatus, RunSelfTests};
pub(crate) use re_encrypt::ReEncrypt;
pub(crate) use release_key::ReleaseKey;
pub(crate) use revoke_credential::RevokeCredential;
pub(crate) use schedule_destroy_key_version::ScheduleDestroyKeyVersion;
pub(crate) use seal::Seal;
pub(crate) use set_key_certificate::SetKeyCertificate;
pub(crate) use set_key_ring_policy::SetKeyRingPolicy;
pub(crate) use set_key_trusted::SetKeyTrusted;
pub(crate) use set_key_version_dates::SetKeyVersionDates;
pub(crate) use set_token_pin::SetTokenPin;
pub(crate) use sign::Sign;
pub(crate) use start::{Start, Stop};
pub(crate) use step_key_version::{
    ActivateKeyVersion, DeactivateKeyVersion, DestroyKeyVersion, RestoreKeyVersion,
    ResumeKeyVersion, SuspendKeyVersion, UndoKeyVersionStep,
};
pub(crate) use stream::{
    Broken, OfDecrypt, OfDigest, OfEncrypt, OfMacSign, OfMacVerify, OfSign, OfVerify, Running,
    StreamOf,
};
pub(crate) use switch_key_version::{DisableKeyVersion, EnableKeyVersion};
pub(crate) use unseal::Unseal;
pub(crate) use unwrap_key::UnwrapKey;
pub(crate) use update_key::{UpdateKey, UpdateObject};
pub(crate) use verify::Verify;
pub(crate) use who_am_i::WhoAmI;
pub(crate) use wrap_key::WrapKey;

pub(crate) use enrolment::Enrolling;
pub(crate) use making::MakingOf;
pub(crate) use reading::Reading;
pub(crate) use using::{Use, Using};
pub(crate) use writing::Writing;

use std::sync::Arc;

use kms_core::id::{KeyName, Resource, RingName};
use kms_core::key::{Key, Ring, Version};
use kms_core::lifecycle::Transition;
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Manner, Subject};
use kms_crypto::vault::{SlotSecret, VersionRef};
use kms_store::Condition;

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{self, KeyOrVersion};

/// A version with its key and ring, as the store has them.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) ring: Arc<Stored<Ring>>,
    pub(crate) key: Arc<Stored<Key>>,
    pub(crate) version: Arc<Stored<Version>>,
}

/// A version that was asked for, found or not.
#[derive(Clone, Debug)]
pub(crate) struct VersionFacts {
    pub(crate) resource: Resource,
    pub(crate) found: Option<Found>,
    /// That version, key and ring stand as they were found.
    unchanged: Arc<[Condition]>,
}

impl VersionFacts {
    /// What the rules are to know, when the operation takes `transition`.
    pub(crate) fn subject(&self, transition: Option<Transition>) -> Subject<'_> {
        self.asked(transition, None, Manner::default())
    }

    /// What the rules are to know, when the operation uses the key by `mechanism`, or by the one that
    /// the key prefers.
    pub(crate) fn subject_used(&self, mechanism: Option<Mechanism>, manner: Manner) -> Subject<'_> {
        self.asked(None, mechanism, manner)
    }

    fn asked(
        &self,
        transition: Option<Transition>,
        mechanism: Option<Mechanism>,
        manner: Manner,
    ) -> Subject<'_> {
        self.found.as_ref().map_or(Subject::Absent, |found| Subject::Version {
            ring: &found.ring.value,
            key: &found.key.value,
            version: &found.version.value,
            transition,
            mechanism,
            manner,
        })
    }

    /// What must still be true when a use is recorded: version, key and ring are as they were judged.
    pub(crate) fn unchanged(&self) -> Vec<Condition> {
        self.unchanged.to_vec()
    }

    /// What was found. The rules refuse an absent subject, so after the decision it is there.
    pub(crate) fn found(&self) -> Result<&Found, Failure> {
        self.found.as_ref().ok_or(ABSENT)
    }

    /// As [`VersionFacts::found`], by value.
    pub(crate) fn into_found(self) -> Result<Found, Failure> {
        self.found.ok_or(ABSENT)
    }
}

const ABSENT: Failure = Failure::Bug("an absent subject was permitted");

impl Found {
    /// The version's name as callers see it.
    pub(crate) fn name(&self) -> String {
        self.version.value.header.version.to_string()
    }

    /// Opens the slot whose erasure destroys the version.
    ///
    /// # Errors
    /// When the store cannot read it, or it was erased.
    pub(crate) async fn slot(&self, cx: &Context) -> Result<SlotSecret, Failure> {
        let slot = self.version.value.slot;
        let slot = slot.ok_or(Failure::Bug("a version without material was to be used"))?;
        let mut secret = cx.store.read_slot(slot).await?;
        Ok(SlotSecret::import(&mut secret)?)
    }

    /// The public key, SubjectPublicKeyInfo in DER; empty for secret keys.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        wire::hex_decode(&self.version.value.public_key).unwrap_or_default()
    }

    /// The version as the vault takes it.
    pub(crate) fn version_ref<'a>(
        &'a self,
        slot: &'a SlotSecret,
        public_key: &'a [u8],
    ) -> VersionRef<'a> {
        VersionRef {
            header: &self.version.value.header,
            slot,
            sealed: &self.version.sealed,
            public_key,
        }
    }
}

/// Loads a ring and opens its key in the vault.
///
/// # Errors
/// When the store fails or a row was edited.
pub(crate) async fn load_ring(
    cx: &Context,
    name: &RingName,
) -> Result<Option<Stored<Ring>>, Early> {
    Ok(ring_shared(cx, name).await?.map(|ring| Stored::clone(&ring)))
}

/// As [`load_ring`], for what is only looked at.
async fn ring_shared(cx: &Context, name: &RingName) -> Result<Option<Arc<Stored<Ring>>>, Early> {
    let vault = cx.vault()?;
    let ring = rows::load_shared::<Ring>(cx, &rows::ring_place(name)).await?;
    if let Some(ring) = ring.as_ref().filter(|_| !vault.ring_is_open(name)) {
        let wrapped = wire::hex_decode(&ring.value.wrapped_key)
            .ok_or(Failure::Bug("a ring key that is not hexadecimal"))?;
        vault.open_ring(name, &wrapped)?;
    }
    Ok(ring)
}

/// Loads a key and its ring. A deleted key is not there.
///
/// # Errors
/// As [`load_ring`].
pub(crate) async fn load_key(
    cx: &Context,
    name: &KeyName,
) -> Result<Option<(Stored<Ring>, Stored<Key>)>, Early> {
    let found = load_key_or_tombstone(cx, name).await?;
    Ok(found.filter(|(_, key)| key.value.deleted_at.is_none()))
}

/// As [`load_key`], for who must know that the name is taken.
///
/// # Errors
/// As [`load_ring`].
pub(crate) async fn load_key_or_tombstone(
    cx: &Context,
    name: &KeyName,
) -> Result<Option<(Stored<Ring>, Stored<Key>)>, Early> {
    let Some(ring) = load_ring(cx, &name.ring).await? else { return Ok(None) };
    let key = rows::load::<Key>(cx, &rows::key_place(name)).await?;
    Ok(key.map(|key| (ring, key)))
}

/// Loads the version that `name` means.
///
/// # Errors
/// As [`load_ring`].
pub(crate) async fn load_version(cx: &Context, name: &KeyOrVersion) -> Result<VersionFacts, Early> {
    let vault = cx.vault()?;
    // Asked before anything is read: what is read later is at least as new.
    let changes = cx.store.row_changes();
    let known = changes.and_then(|changes| cx.memo.version(name, changes));
    if let Some(facts) = known.filter(|_| vault.ring_is_open(&name.key().ring)) {
        return Ok(facts);
    }
    // In a place of its own: what is needed rarely is not to make every use larger.
    let facts = Box::pin(read_version(cx, name)).await?;
    if let (Some(changes), Some(_)) = (changes, &facts.found) {
        cx.memo.keep_version(name, changes, &facts);
    }
    Ok(facts)
}

async fn read_version(cx: &Context, name: &KeyOrVersion) -> Result<VersionFacts, Early> {
    let absent = || VersionFacts { resource: named(name), found: None, unchanged: [].into() };
    let Some(ring) = ring_shared(cx, &name.key().ring).await? else { return Ok(absent()) };
    let key = rows::load_shared::<Key>(cx, &rows::key_place(name.key())).await?;
    let Some(key) = key.filter(|key| key.value.deleted_at.is_none()) else { return Ok(absent()) };
    let version_name = match name {
        KeyOrVersion::Key(name) => name.version(key.value.primary),
        KeyOrVersion::Version(name) => name.clone(),
    };
    let version = rows::load_shared::<Version>(cx, &rows::version_place(&version_name)).await?;
    let resource = Resource::Version(version_name);
    let Some(version) = version else { return Ok(VersionFacts { resource, ..absent() }) };
    let unchanged = [rows::stands(&version), rows::stands(&key), rows::stands(&ring)].into();
    Ok(VersionFacts { resource, found: Some(Found { ring, key, version }), unchanged })
}

/// The resource that a request names before anything is loaded.
pub(crate) fn named(name: &KeyOrVersion) -> Resource {
    match name {
        KeyOrVersion::Key(name) => Resource::Key(name.clone()),
        KeyOrVersion::Version(name) => Resource::Version(name.clone()),
    }
}

/// Whether a write of the same request was committed before: then this is a retry, and the answer
/// is what that write made.
///
/// # Errors
/// When the store fails.
pub(crate) async fn is_retry(
    cx: &Context,
    idempotency: Option<kms_core::id::Digest>,
) -> Result<bool, Early> {
    match idempotency {
        Some(digest) => Ok(cx.store.outcome_of(&digest.0).await?.is_some()),
        None => Ok(false),
    }
}
