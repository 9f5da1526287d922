//! GetProviderStatus and RunSelfTests: which library serves, and what its self tests say.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::provider::awslc::module;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::{mechanism_out, time_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetProviderStatus;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct RunSelfTests;

impl Read for GetProviderStatus {
    type Wire = v1::GetProviderStatusRequest;
    type Facts = ();
    type Reply = v1::GetProviderStatusResponse;

    const ACTION: Action = Action::GetProviderStatus;

    fn parse(_wire: v1::GetProviderStatusRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, _cx: &Context, _caller: &Caller) -> Result<(), Early> {
        Ok(())
    }

    async fn reply(
        self,
        cx: &Context,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::GetProviderStatusResponse, Failure> {
        Ok(v1::GetProviderStatusResponse { status: Some(status(cx)), audit: Some(audit) })
    }
}

impl Read for RunSelfTests {
    type Wire = v1::RunSelfTestsRequest;
    type Facts = ();
    type Reply = v1::RunSelfTestsResponse;

    const ACTION: Action = Action::RunSelfTests;

    fn parse(_wire: v1::RunSelfTestsRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, _cx: &Context, _caller: &Caller) -> Result<(), Early> {
        Ok(())
    }

    async fn reply(
        self,
        cx: &Context,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::RunSelfTestsResponse, Failure> {
        cx.run_self_tests().await;
        Ok(v1::RunSelfTestsResponse { status: Some(status(cx)), audit: Some(audit) })
    }
}

fn status(cx: &Context) -> v1::ProviderStatus {
    use v1::SelfTestOutcome as Outcome;
    let failed = cx.self_tests.state().err().and_then(|failed| failed.mechanism());
    let outcome = |mechanism: Mechanism| match mechanism {
        mechanism if failed == Some(mechanism) => Outcome::Failed,
        mechanism if cx.self_tests.has_passed(mechanism) => Outcome::Passed,
        _ => Outcome::Pending,
    };
    v1::ProviderStatus {
        provider: cx.self_tests.provider().name().to_owned(),
        fips_module: module::is_fips(),
        module_version: module::version(),
        integrity: cx.programs.as_ref().map(|programs| v1::ProgramIntegrity {
            key: programs.key().to_string(),
            last_intact_time: time_out(programs.checked_at()),
        }),
        approved_only: cx.approved_only,
        error_state: cx.self_tests.state().is_err(),
        self_tests: Mechanism::ALL
            .iter()
            .map(|mechanism| v1::SelfTest {
                mechanism: mechanism_out(*mechanism),
                outcome: outcome(*mechanism).into(),
                in_module: module::carries_out(*mechanism),
            })
            .collect(),
        last_run_time: cx.self_tests_run_at().and_then(time_out),
    }
}
