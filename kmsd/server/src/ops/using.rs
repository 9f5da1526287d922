//! Operations that use a key: what is the same for all of them.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, Resource};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_crypto::CryptoError;
use kms_crypto::vault::{Vault, VersionRef};
use kms_proto::v1;
use kms_store::Condition;
use prost::Message;

use super::{VersionFacts, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::KeyOrVersion;

/// An operation that uses one version of a key, once.
pub(crate) trait Use: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The key that is meant.
    fn name(&self) -> &KeyOrVersion;

    /// The mechanism that was asked for; none means the one that the key prefers.
    fn mechanism(&self) -> Option<Mechanism>;

    /// Spends the permit in the vault and makes the response. `version_name` is the version's.
    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<Self::Reply, CryptoError>;
}

/// What the vault needs, and what the response says of it.
pub(crate) struct KeyUse<'a> {
    pub(crate) recorded: Recorded,
    pub(crate) request_digest: &'a Digest,
    pub(crate) version: VersionRef<'a>,
    pub(crate) mechanism: Mechanism,
    pub(crate) version_name: String,
    pub(crate) audit: v1::AuditReference,
}

/// Runs a [`Use`] through the pipeline.
#[derive(Debug)]
pub(crate) struct Using<U>(U);

impl<U: Use> Operation for Using<U> {
    type Wire = U::Wire;
    type Facts = VersionFacts;
    type Prepared = ();
    type Reply = U::Reply;

    const ACTION: Action = U::ACTION;

    fn parse(wire: U::Wire, home: &Home) -> Result<Self, Refusal> {
        U::parse(wire, home).map(Self)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<VersionFacts, Early> {
        load_version(cx, self.0.name()).await
    }

    fn named(&self) -> Resource {
        named(self.0.name())
    }

    fn resource(&self, facts: &VersionFacts) -> Resource {
        facts.resource.clone()
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject_used(self.0.mechanism())
    }

    fn unchanged(&self, facts: &VersionFacts) -> Vec<Condition> {
        facts.unchanged()
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _facts: &VersionFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: VersionFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<U::Reply, Failure> {
        let found = facts.found()?;
        // The rules have permitted it, so the key has one.
        let usage = U::ACTION.usage().ok_or(Failure::Bug("a use that is none"))?;
        let mechanism = found.key.value.mechanism_for(usage, self.0.mechanism());
        let mechanism = mechanism.ok_or(Failure::Bug("a use without a mechanism was permitted"))?;
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let slot = found.slot(cx).await?;
        let public_key = found.public_key();
        let version = found.version_ref(&slot, &public_key);
        let request_digest = &stamp.request_digest;
        let version_name = found.name();
        let key = KeyUse { recorded, request_digest, version, mechanism, version_name, audit };
        Ok(self.0.apply(&vault, key)?)
    }
}
