//! Unseal: opens the root key with its passphrase. The passphrase carries the authority.

use std::sync::{Mutex, PoisonError};

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_crypto::CryptoError;
use kms_crypto::unlock::{PassphraseWrap, RootKey, unwrap_by_passphrase};
use kms_proto::v1;
use secrecy::SecretString;

use super::list_tokens::may_log_in;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::root;
use crate::rows::Draft;
use crate::wire::invalid;

/// The parsed request.
pub(crate) struct Unseal {
    passphrase: SecretString,
    /// The root key, once the passphrase has opened it.
    root: Mutex<Option<RootKey>>,
}

impl Operation for Unseal {
    type Wire = v1::UnsealRequest;
    type Facts = PassphraseWrap;
    type Prepared = ();
    type Reply = v1::UnsealResponse;

    const ACTION: Action = Action::Unseal;

    fn parse(wire: v1::UnsealRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self { passphrase: SecretString::from(wire.passphrase), root: Mutex::default() })
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<PassphraseWrap, Early> {
        // A stranger's wrong tries would hold up the right one.
        if !may_log_in(caller) {
            return Err(Refusal::NotFound.into());
        }
        Ok(root::passphrase_wrap(&*cx.store).await?.ok_or(Refusal::UsageRefused)?)
    }

    fn resource(&self, _wrap: &PassphraseWrap) -> Resource {
        Resource::Appliance
    }

    fn subject<'a>(&self, _wrap: &'a PassphraseWrap) -> Subject<'a> {
        Subject::Plain
    }

    async fn grounds(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
        wrap: &PassphraseWrap,
    ) -> Result<Grounds, Early> {
        if !cx.is_sealed() {
            return Err(invalid("passphrase", "the root key is open already").into());
        }
        // Counted before it is hashed: a request that is given up has had its try.
        if !cx.unseal_tries.begin(stamp.now) {
            return Err(Refusal::TooManyTries.into());
        }
        let (wrap, passphrase) = (wrap.clone(), self.passphrase.clone());
        let opened = cx.passphrases.run(move || unwrap_by_passphrase(&wrap, &passphrase)).await;
        match opened.ok_or(Failure::Bug("the passphrase worker ended"))? {
            Ok(root) => {
                *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
                Ok(Grounds::default())
            }
            Err(CryptoError::PassphraseIncorrect) => Err(Refusal::PinIncorrect.into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _wrap: &PassphraseWrap,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _wrap: PassphraseWrap,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::UnsealResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &Resource::Appliance, &stamp.request_digest)?;
        let root = self.root.into_inner().unwrap_or_else(PoisonError::into_inner);
        root::open(cx, root.ok_or(Failure::Bug("an unseal without a root"))?).await?;
        cx.unseal_tries.right();
        Ok(v1::UnsealResponse { sealed: false, audit: Some(audit) })
    }
}
