//! `kmsctl appliance`: which libraries serve, and what their self tests say.

use clap::Subcommand;
use kms_client::v1;
use serde_json::json;

use super::required;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Appliance {
    /// Show which libraries serve, and what their self tests say.
    #[command(after_help = HELP)]
    Status,
    /// Run the self tests now. Needs the role operator or security-officer.
    #[command(after_help = HELP)]
    SelfTest,
}

impl Appliance {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let client = connection.open().await?;
        match self {
            Self::Status => {
                let request = v1::GetProviderStatusRequest {};
                let answer = client
                    .retry(async || client.appliance().get_provider_status(request).await)
                    .await?;
                Ok(view::audited(status(required(answer.status)?), answer.audit))
            }
            Self::SelfTest => {
                let request = v1::RunSelfTestsRequest {};
                let answer =
                    client.retry(async || client.appliance().run_self_tests(request).await).await?;
                Ok(view::audited(status(required(answer.status)?), answer.audit))
            }
        }
    }
}

/// Says no, by the exit code, in the error state.
fn status(status: v1::ProviderStatus) -> Report {
    let v1::ProviderStatus {
        provider,
        fips_module,
        approved_only,
        error_state,
        self_tests,
        last_run_time,
        module_version,
        integrity,
    } = status;
    let row = |test: v1::SelfTest| {
        let outcome = test.outcome().as_str_name();
        json!({
            "mechanism": view::mechanism(test.mechanism()),
            "in_module": test.in_module,
            "outcome": outcome.trim_start_matches("SELF_TEST_OUTCOME_"),
        })
    };
    let last_run_time = last_run_time.and_then(view::timestamp);
    let module = if fips_module { "a FIPS module, in FIPS mode" } else { "no FIPS module" };
    let integrity = integrity.map(|v1::ProgramIntegrity { key, last_intact_time }| {
        json!({ "key": key, "last_intact_time": last_intact_time.and_then(view::timestamp) })
    });
    let programs = match &integrity {
        Some(integrity) => format!("programs as signed by {}", integrity["key"]),
        None => "programs not checked".to_owned(),
    };
    let services = if approved_only { "approved services only" } else { "all services" };
    let summary = format!("\n{module_version}, {module}; {services}; {programs}");
    let report = Report::rows(
        "self_tests",
        &["mechanism", "outcome", "in_module"],
        self_tests.into_iter().map(row).collect(),
    )
    .with("provider", json!(provider))
    .with("module_version", json!(module_version))
    .with("fips_module", json!(fips_module))
    .with("integrity", json!(integrity))
    .with("approved_only", json!(approved_only))
    .with("error_state", json!(error_state))
    .with("last_run_time", json!(last_run_time))
    .note(summary);
    if error_state {
        let told = "ERROR STATE: a self test failed. Nothing is served but status and destruction; restart the daemon, and if it comes back, replace the machine.";
        return report.note(told).accepted_if(false);
    }
    report
}

const HELP: &str = "\
Exit code 3 when the appliance is in its error state.

Examples:
  kmsctl appliance status
  kmsctl --output json appliance self-test";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_state_is_a_no_and_names_what_failed() {
        let failed = v1::SelfTest {
            in_module: true,
            mechanism: v1::Mechanism::AesGcm.into(),
            outcome: v1::SelfTestOutcome::Failed.into(),
        };
        let stopped = v1::ProviderStatus {
            provider: "aws-lc".into(),
            error_state: true,
            self_tests: vec![failed],
            ..Default::default()
        };
        let report = status(stopped.clone());
        assert!(!report.accepted);
        let told = report.to_json();
        let expected = json!({ "in_module": true, "mechanism": "AES_GCM", "outcome": "FAILED" });
        assert_eq!(told["self_tests"][0], expected);
        assert_eq!(told["error_state"], true);
        assert!(status(v1::ProviderStatus { error_state: false, ..stopped }).accepted);
    }
}
