//! GetKeyStatement: what a version is and where it comes from, signed for strangers.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::statement::{KeyStatement, NONCE_BYTES_MAX, Occasion, voucher};
use kms_proto::v1;

use super::{VersionFacts, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{KeyOrVersion, bounded};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetKeyStatement {
    name: KeyOrVersion,
    nonce: Vec<u8>,
}

impl Operation for GetKeyStatement {
    type Wire = v1::GetKeyStatementRequest;
    type Facts = VersionFacts;
    type Prepared = ();
    type Reply = v1::GetKeyStatementResponse;

    const ACTION: Action = Action::GetKeyStatement;

    fn parse(wire: v1::GetKeyStatementRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::GetKeyStatementRequest { name, nonce } = wire;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            nonce: bounded("nonce", nonce, NONCE_BYTES_MAX)?,
        })
    }

    fn named(&self) -> Resource {
        named(&self.name)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<VersionFacts, Early> {
        load_version(cx, &self.name).await
    }

    fn resource(&self, facts: &VersionFacts) -> Resource {
        facts.resource.clone()
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject(None)
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
    ) -> Result<v1::GetKeyStatementResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &facts.resource, &stamp.request_digest)?;
        let found = facts.found()?;
        let opened = cx.opened().map_err(|_| Failure::SealedMeanwhile)?;
        let (signer, appliance) = (&opened.statement_signer, cx.log_key.origin());
        let (key, version) = (&found.key.value, &found.version.value);
        let occasion = Occasion {
            appliance: appliance.to_owned(),
            nonce: self.nonce,
            now: stamp.now,
            operation_id: stamp.operation_id,
            audit_index: audit.audit_index,
        };
        let statement = KeyStatement::of(&found.ring.value, key, version, occasion);
        let cose = statement.to_cose(&signer.key_id(), |input| signer.sign(input))?;
        let mut certificate_chain = Vec::new();
        let (name, public_key) = (found.name(), found.public_key());
        // X-Wing public keys and secrets have no SubjectPublicKeyInfo that a certificate could hold, and
        // what waits for its material has no public key yet.
        if key.algorithm.has_certificates() && !public_key.is_empty() {
            let from = stamp.now;
            certificate_chain.push(signer.key_certificate(
                appliance,
                &name,
                &public_key,
                &cose,
                from,
            )?);
        }
        let voucher = opened.log_signer.sign(&voucher(appliance, signer.public_key()))?;
        // Valid since the log began, as far as anybody can tell: the statement bears its own time.
        let since = kms_core::id::Timestamp(0);
        certificate_chain.push(signer.appliance_certificate(appliance, &voucher, since)?);
        Ok(v1::GetKeyStatementResponse { cose, certificate_chain, audit: Some(audit) })
    }
}
