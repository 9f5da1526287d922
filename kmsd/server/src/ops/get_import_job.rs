//! GetImportJob: an import job with the public key to seal to.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Refusal, Subject};
use kms_core::transfer::{ImportJob, ImportJobName};
use kms_proto::v1;

use super::load_ring;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{import_job_name, import_job_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetImportJob(ImportJobName);

impl Read for GetImportJob {
    type Wire = v1::GetImportJobRequest;
    type Facts = Option<Stored<ImportJob>>;
    type Reply = v1::GetImportJobResponse;

    const ACTION: Action = Action::GetImportJob;

    fn parse(wire: v1::GetImportJobRequest, home: &Home) -> Result<Self, Refusal> {
        import_job_name("name", &wire.name, home).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Self::Facts, Early> {
        match load_ring(cx, &self.0.ring).await? {
            Some(_) => rows::load(cx, &rows::import_job_place(&self.0)).await,
            None => Ok(None),
        }
    }

    fn resource(&self) -> Resource {
        Resource::Ring(self.0.ring.clone())
    }

    fn subject<'a>(&self, job: &'a Self::Facts) -> Subject<'a> {
        job.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn reply(
        self,
        _cx: &Context,
        job: Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetImportJobResponse, Failure> {
        let job = job.as_ref().ok_or(super::ABSENT)?;
        Ok(v1::GetImportJobResponse { job: Some(import_job_out(&job.value)), audit: Some(audit) })
    }
}
