//! CreateImportJob: a key pair that somebody outside seals a key to.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::Ring;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::service::Ingredients;
use kms_core::transfer::{IMPORT_JOB_MS, ImportJob, ImportJobName, ImportMethod};
use kms_proto::v1;

use super::{is_retry, load_ring};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{hex_encode, import_job_out, import_method, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateImportJob {
    ring: RingName,
    method: ImportMethod,
}

/// The ring, if it is there, and the job that an earlier attempt of this very request made.
#[derive(Debug)]
pub(crate) struct JobFacts {
    ring: Option<Stored<Ring>>,
    existing: Option<Stored<ImportJob>>,
}

impl CreateImportJob {
    /// A job is named by the operation that makes it.
    fn name(&self, stamp: &Stamp) -> Result<ImportJobName, Failure> {
        let id = stamp.operation_id.to_string();
        let id = id.parse().map_err(|_| Failure::Bug("an operation id that is no name"))?;
        Ok(ImportJobName { ring: self.ring.clone(), id })
    }
}

impl Operation for CreateImportJob {
    type Wire = v1::CreateImportJobRequest;
    type Facts = JobFacts;
    type Prepared = v1::ImportJob;
    type Reply = v1::CreateImportJobResponse;

    const ACTION: Action = Action::CreateImportJob;

    fn parse(wire: v1::CreateImportJobRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateImportJobRequest { parent, method, request_id: _ } = wire;
        Ok(Self { ring: ring_name("parent", &parent, home)?, method: import_method(method)? })
    }

    fn request_id(wire: &v1::CreateImportJobRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, stamp: &Stamp) -> Result<JobFacts, Early> {
        let ring = load_ring(cx, &self.ring).await?;
        let existing = match is_retry(cx, stamp.idempotency).await? {
            true => rows::load(cx, &rows::import_job_place(&self.name(stamp)?)).await?,
            false => None,
        };
        Ok(JobFacts { ring, existing })
    }

    fn resource(&self, _facts: &JobFacts) -> Resource {
        self.named()
    }

    fn ingredients(&self, _facts: &JobFacts) -> Ingredients {
        Ingredients::import(self.method)
    }

    fn subject<'a>(&self, facts: &'a JobFacts) -> Subject<'a> {
        facts.ring.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &JobFacts,
    ) -> Result<(v1::ImportJob, Vec<Draft>), Early> {
        if let Some(existing) = &facts.existing {
            return Ok((import_job_out(&existing.value), Vec::new()));
        }
        let (vault, name) = (cx.vault()?, self.name(stamp)?);
        // An RSA key takes seconds to find; other tasks move to another worker meanwhile.
        let made = tokio::task::block_in_place(|| vault.create_import_job(&name, self.method))?;
        let job = ImportJob {
            name,
            method: self.method,
            public_key: hex_encode(&made.public_key),
            created_at: stamp.now,
            expires_at: stamp.now.plus_ms(IMPORT_JOB_MS),
        };
        let draft = rows::create(&vault, &stamp.operation_id, &job, &made.sealed)?;
        Ok((import_job_out(&job), vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _facts: JobFacts,
        job: v1::ImportJob,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateImportJobResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::CreateImportJobResponse { job: Some(job), audit: Some(audit) })
    }
}
