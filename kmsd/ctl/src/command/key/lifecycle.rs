//! Steps in the life of a version. Six messages of one shape.

use clap::Args;
use kms_client::v1;

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

macro_rules! steps {
    ($($step:ident => $method:ident($request:ident)),+ $(,)?) => {
        impl Target {$(
            pub(crate) async fn $step(self, connection: &Connection) -> Result<Report, Failure> {
                let Self { name, etag } = self;
                let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
                let request = v1::$request { name, etag, request_id };
                let client = connection.open().await?;
                let answer =
                    client.retry(async || client.keys().$method(request.clone()).await).await?;
                let version = view::key_version(required(answer.version)?);
                Ok(view::audited(Report::fields(version), answer.audit))
            }
        )+}
    };
}

steps! {
    activate => activate_key_version(ActivateKeyVersionRequest),
    compromise => compromise_key_version(CompromiseKeyVersionRequest),
    deactivate => deactivate_key_version(DeactivateKeyVersionRequest),
    destroy => destroy_key_version(DestroyKeyVersionRequest),
    resume => resume_key_version(ResumeKeyVersionRequest),
    suspend => suspend_key_version(SuspendKeyVersionRequest),
}

pub(crate) const DESTROY_HELP: &str = "\
Where a quorum guards the key, the exit code is 4 and the way is:
  kmsctl proposal create DestroyKeyVersion dev/k1@1";
