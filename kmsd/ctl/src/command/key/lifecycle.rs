//! Steps in the life of a version: messages of one shape, and the few that say more.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use kms_client::v1;
use kms_core::id::Timestamp;
use kms_core::lifecycle::CompromiseReason;

use crate::command::required;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

/// The version that a step is for.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// Version name, for example dev/k1@1.
    name: String,
    /// Only if the version still has this etag, as versions shows it.
    #[arg(long)]
    etag: Option<String>,
}

/// Sends a step, which a retry cannot make twice, and shows the version.
macro_rules! take_step {
    ($connection:expr, $target:expr, $method:ident($request:ident { $($field:ident: $value:expr),* })) => {{
        let Target { name, etag } = $target;
        let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
        let request = v1::$request { name, etag, request_id, $($field: $value),* };
        let client = $connection.open().await?;
        let answer = client.retry(async || client.keys().$method(request.clone()).await).await?;
        let version = view::key_version(required(answer.version)?);
        Ok(view::audited(Report::fields(version), answer.audit))
    }};
}

macro_rules! steps {
    ($($step:ident => $method:ident($request:ident)),+ $(,)?) => {
        impl Target {$(
            pub(crate) async fn $step(self, connection: &Connection) -> Result<Report, Failure> {
                take_step!(connection, self, $method($request {}))
            }
        )+}
    };
}

steps! {
    activate => activate_key_version(ActivateKeyVersionRequest),
    deactivate => deactivate_key_version(DeactivateKeyVersionRequest),
    destroy => destroy_key_version(DestroyKeyVersionRequest),
    disable => disable_key_version(DisableKeyVersionRequest),
    enable => enable_key_version(EnableKeyVersionRequest),
    restore => restore_key_version(RestoreKeyVersionRequest),
    resume => resume_key_version(ResumeKeyVersionRequest),
    suspend => suspend_key_version(SuspendKeyVersionRequest),
    undo => undo_key_version_step(UndoKeyVersionStepRequest),
}

#[derive(Args, Debug)]
pub(crate) struct Compromise {
    #[command(flatten)]
    target: Target,
    /// Why it is to be treated as in wrong hands.
    #[arg(long, default_value = "UNSPECIFIED",
        value_parser = PossibleValuesParser::new(CompromiseReason::ALL.map(CompromiseReason::as_str)))]
    reason: String,
    /// Since when it may have been; without it, from now on.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    since: Option<Timestamp>,
}

impl Compromise {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { target, reason, since } = self;
        let reason = v1::CompromiseReason::from_str_name(&format!("COMPROMISE_REASON_{reason}"))
            .ok_or_else(|| Failure::input(&reason, "unknown reason"))?;
        let compromise =
            v1::Compromise { occur_time: since.map(input::wire_time), reason: reason.into() };
        take_step!(
            connection,
            target,
            compromise_key_version(CompromiseKeyVersionRequest { compromise: Some(compromise) })
        )
    }
}

#[derive(Args, Debug)]
pub(crate) struct ScheduleDestroy {
    #[command(flatten)]
    target: Target,
    /// When; without it, after the appliance's delay, which is also the shortest.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp, conflicts_with = "after")]
    at: Option<Timestamp>,
    /// How long from now, for example 30d or 36h.
    #[arg(long = "in", value_name = "DURATION", value_parser = input::duration)]
    after: Option<Duration>,
}

impl ScheduleDestroy {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { target, at, after } = self;
        let date = at.or_else(|| after.map(input::from_now));
        take_step!(
            connection,
            target,
            schedule_destroy_key_version(ScheduleDestroyKeyVersionRequest {
                destroy_time: date.map(input::wire_time)
            })
        )
    }
}

#[derive(Args, Debug)]
pub(crate) struct SetDates {
    #[command(flatten)]
    target: Target,
    /// When it becomes ACTIVE, while it is PRE_ACTIVE; without it, there is no such date.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    activate_at: Option<Timestamp>,
    /// When it becomes DEACTIVATED; without it, there is no such date.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    deactivate_at: Option<Timestamp>,
    /// Take both dates off.
    #[arg(long, conflicts_with_all = ["activate_at", "deactivate_at"])]
    clear: bool,
}

impl SetDates {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { target, activate_at, deactivate_at, clear } = self;
        if activate_at.is_none() && deactivate_at.is_none() && !clear {
            return Err(Failure::Input(
                "no date given: use --activate-at, --deactivate-at, or --clear to take both off"
                    .to_owned(),
            ));
        }
        take_step!(
            connection,
            target,
            set_key_version_dates(SetKeyVersionDatesRequest {
                activate_time: activate_at.map(input::wire_time),
                deactivate_time: deactivate_at.map(input::wire_time)
            })
        )
    }
}

#[derive(Args, Debug)]
pub(crate) struct SetCertificate {
    #[command(flatten)]
    target: Target,
    /// The certificate for the version's public key, PEM or DER.
    #[arg(long = "in", value_name = "FILE|-", required_unless_present = "remove")]
    input: Option<PathBuf>,
    /// Take it off.
    #[arg(long, conflicts_with = "input")]
    remove: bool,
}

impl SetCertificate {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { target, input, remove: _ } = self;
        let certificate = match input {
            Some(path) => input::der_or_pem(&path, "CERTIFICATE")?,
            None => Vec::new(),
        };
        take_step!(
            connection,
            target,
            set_key_certificate(SetKeyCertificateRequest { certificate: certificate })
        )
    }
}

pub(crate) const STEP_HELP: &str = "\
A way through the life of a version; undo takes the last step back, history shows them all:
  kmsctl key create dev/k1 --algorithm EC_P256 --pre-active
  kmsctl key activate dev/k1@1
  kmsctl key suspend dev/k1@1
  kmsctl key resume dev/k1@1
  kmsctl key deactivate dev/k1@1";
pub(crate) const DESTROY_HELP: &str = "\
Example:
  kmsctl key deactivate dev/k1@1
  kmsctl key destroy dev/k1@1

Where a quorum guards the key, the exit code is 4 and the way is:
  kmsctl proposal create DestroyKeyVersion dev/k1@1

To keep a way back, use schedule-destroy:
  kmsctl key deactivate dev/k1@1
  kmsctl key schedule-destroy dev/k1@1 --in 30d";
pub(crate) const SCHEDULE_DESTROY_HELP: &str = "\
Until that date the version is not used, and restore takes it back as DEACTIVATED.

Examples:
  kmsctl key schedule-destroy dev/k1@1
  kmsctl key schedule-destroy dev/k1@1 --in 30d
  kmsctl key schedule-destroy dev/k1@1 --at 2027-01-31T00:00:00Z
  kmsctl key restore dev/k1@1";
pub(crate) const COMPROMISE_HELP: &str = "\
A compromised version protects nothing new. --since is a time between the version's creation and
now.

Examples:
  kmsctl key compromise dev/k1@1
  kmsctl key compromise dev/k1@1 --reason KEY_COMPROMISE --since 2026-11-01T00:00:00Z";
pub(crate) const UNDO_HELP: &str = "\
Which state it goes back to, and until when, is shown by versions as undo_state and
undo_expire_time.

Example:
  kmsctl key suspend dev/k1@1
  kmsctl key undo dev/k1@1";
pub(crate) const ENABLE_HELP: &str = "\
The switch is apart from the state: what is switched off is not used, whatever its state.

Examples:
  kmsctl key disable dev/k1@1
  kmsctl key enable dev/k1@1";
pub(crate) const SET_DATES_HELP: &str = "\
Examples:
  kmsctl key set-dates dev/k1@1 --activate-at 2027-01-01T00:00:00Z \\
    --deactivate-at 2028-01-01T00:00:00Z
  kmsctl key set-dates dev/k1@1 --clear";
pub(crate) const SET_CERTIFICATE_HELP: &str = "\
The way from a key to its certificate:
  kmsctl key csr dev/tls --subject CN=www.example --san www.example --out tls.csr
  kmsctl key set-certificate dev/tls@1 --in tls.crt
  kmsctl key set-certificate dev/tls@1 --remove";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_on_the_wire() {
        for reason in CompromiseReason::ALL {
            let name = format!("COMPROMISE_REASON_{}", reason.as_str());
            assert!(v1::CompromiseReason::from_str_name(&name).is_some(), "{name}");
        }
    }
}
