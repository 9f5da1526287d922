//! Which method runs which operation.

use kms_proto::v1;
use kms_proto::v1::appliance_service_server::{ApplianceService, ApplianceServiceServer};
use kms_proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use kms_proto::v1::crypto_service_server::{CryptoService, CryptoServiceServer};
use kms_proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use kms_proto::v1::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use kms_proto::v1::proposal_service_server::{ProposalService, ProposalServiceServer};
use kms_proto::v1::release_service_server::{ReleaseService, ReleaseServiceServer};
use kms_proto::v1::seal_service_server::{SealService, SealServiceServer};
use kms_proto::v1::token_service_server::{TokenService, TokenServiceServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::batch;
use super::session::{self, SessionStream};
use super::stream;
use crate::ops;
use crate::ops::{Enrolling, MakingOf, Reading, Using, Writing};

macro_rules! service {
    (
        $service:ident { $($method:ident($request:ident) -> $response:ident: $operation:ty;)+ }
        $(streams { $($streams:tt)+ })?
    ) => {
        #[tonic::async_trait]
        impl $service for Api {
            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    self.serve::<$operation>(request).await
                }
            )+
            $($($streams)+)?
        }
    };
}

service!(KeyManagementService {
    activate_key_version(ActivateKeyVersionRequest) -> ActivateKeyVersionResponse: Writing<ops::ActivateKeyVersion>;
    compromise_key_version(CompromiseKeyVersionRequest) -> CompromiseKeyVersionResponse: Writing<ops::CompromiseKeyVersion>;
    create_import_job(CreateImportJobRequest) -> CreateImportJobResponse: ops::CreateImportJob;
    create_key(CreateKeyRequest) -> CreateKeyResponse: ops::CreateKey;
    create_key_ring(CreateKeyRingRequest) -> CreateKeyRingResponse: ops::CreateKeyRing;
    create_key_version(CreateKeyVersionRequest) -> CreateKeyVersionResponse: ops::CreateKeyVersion;
    deactivate_key_version(DeactivateKeyVersionRequest) -> DeactivateKeyVersionResponse: Writing<ops::DeactivateKeyVersion>;
    delete_key(DeleteKeyRequest) -> DeleteKeyResponse: Writing<ops::DeleteKey>;
    destroy_key_version(DestroyKeyVersionRequest) -> DestroyKeyVersionResponse: Writing<ops::DestroyKeyVersion>;
    disable_key_version(DisableKeyVersionRequest) -> DisableKeyVersionResponse: Writing<ops::DisableKeyVersion>;
    enable_key_version(EnableKeyVersionRequest) -> EnableKeyVersionResponse: Writing<ops::EnableKeyVersion>;
    export_key_version(ExportKeyVersionRequest) -> ExportKeyVersionResponse: ops::ExportKeyVersion;
    get_import_job(GetImportJobRequest) -> GetImportJobResponse: Reading<ops::GetImportJob>;
    get_key(GetKeyRequest) -> GetKeyResponse: Reading<ops::GetKey>;
    get_key_ring(GetKeyRingRequest) -> GetKeyRingResponse: Reading<ops::GetKeyRing>;
    get_key_statement(GetKeyStatementRequest) -> GetKeyStatementResponse: ops::GetKeyStatement;
    get_key_version(GetKeyVersionRequest) -> GetKeyVersionResponse: Reading<ops::GetKeyVersion>;
    get_public_key(GetPublicKeyRequest) -> GetPublicKeyResponse: Reading<ops::GetPublicKey>;
    import_key_version(ImportKeyVersionRequest) -> ImportKeyVersionResponse: ops::ImportKeyVersion;
    list_key_history(ListKeyHistoryRequest) -> ListKeyHistoryResponse: Reading<ops::ListKeyHistory>;
    list_key_rings(ListKeyRingsRequest) -> ListKeyRingsResponse: Reading<ops::ListKeyRings>;
    list_key_versions(ListKeyVersionsRequest) -> ListKeyVersionsResponse: Reading<ops::ListKeyVersions>;
    list_keys(ListKeysRequest) -> ListKeysResponse: Reading<ops::ListKeys>;
    restore_key_version(RestoreKeyVersionRequest) -> RestoreKeyVersionResponse: Writing<ops::RestoreKeyVersion>;
    resume_key_version(ResumeKeyVersionRequest) -> ResumeKeyVersionResponse: Writing<ops::ResumeKeyVersion>;
    schedule_destroy_key_version(ScheduleDestroyKeyVersionRequest) -> ScheduleDestroyKeyVersionResponse: Writing<ops::ScheduleDestroyKeyVersion>;
    set_key_certificate(SetKeyCertificateRequest) -> SetKeyCertificateResponse: Writing<ops::SetKeyCertificate>;
    set_key_ring_policy(SetKeyRingPolicyRequest) -> SetKeyRingPolicyResponse: Writing<ops::SetKeyRingPolicy>;
    set_key_trusted(SetKeyTrustedRequest) -> SetKeyTrustedResponse: Writing<ops::SetKeyTrusted>;
    set_key_version_dates(SetKeyVersionDatesRequest) -> SetKeyVersionDatesResponse: Writing<ops::SetKeyVersionDates>;
    suspend_key_version(SuspendKeyVersionRequest) -> SuspendKeyVersionResponse: Writing<ops::SuspendKeyVersion>;
    undo_key_version_step(UndoKeyVersionStepRequest) -> UndoKeyVersionStepResponse: Writing<ops::UndoKeyVersionStep>;
    update_key(UpdateKeyRequest) -> UpdateKeyResponse: Writing<ops::UpdateKey>;
});

service!(TokenService {
    find_objects(FindObjectsRequest) -> FindObjectsResponse: Reading<ops::FindObjects>;
    list_tokens(ListTokensRequest) -> ListTokensResponse: Reading<ops::ListTokens>;
    set_token_pin(SetTokenPinRequest) -> SetTokenPinResponse: ops::SetTokenPin;
});

service!(IdentityService {
    add_credential(AddCredentialRequest) -> AddCredentialResponse: Enrolling<ops::AddCredential>;
    create_binding(CreateBindingRequest) -> CreateBindingResponse: Enrolling<ops::CreateBinding>;
    create_user(CreateUserRequest) -> CreateUserResponse: ops::CreateUser;
    delete_binding(DeleteBindingRequest) -> DeleteBindingResponse: Enrolling<ops::DeleteBinding>;
    delete_user(DeleteUserRequest) -> DeleteUserResponse: Enrolling<ops::DeleteUser>;
    disable_user(DisableUserRequest) -> DisableUserResponse: Enrolling<ops::DisableUser>;
    enable_user(EnableUserRequest) -> EnableUserResponse: Enrolling<ops::EnableUser>;
    get_user(GetUserRequest) -> GetUserResponse: Reading<ops::GetUser>;
    list_bindings(ListBindingsRequest) -> ListBindingsResponse: Reading<ops::ListBindings>;
    list_users(ListUsersRequest) -> ListUsersResponse: Reading<ops::ListUsers>;
    revoke_credential(RevokeCredentialRequest) -> RevokeCredentialResponse: Enrolling<ops::RevokeCredential>;
    who_am_i(WhoAmIRequest) -> WhoAmIResponse: Reading<ops::WhoAmI>;
});

service!(ProposalService {
    approve_proposal(ApproveProposalRequest) -> ApproveProposalResponse: ops::ApproveProposal;
    cancel_proposal(CancelProposalRequest) -> CancelProposalResponse: ops::CancelProposal;
    create_proposal(CreateProposalRequest) -> CreateProposalResponse: ops::CreateProposal;
    execute_proposal(ExecuteProposalRequest) -> ExecuteProposalResponse: ops::ExecuteProposal;
    get_proposal(GetProposalRequest) -> GetProposalResponse: ops::GetProposal;
    list_proposals(ListProposalsRequest) -> ListProposalsResponse: Reading<ops::ListProposals>;
});

service!(ReleaseService {
    create_release_challenge(CreateReleaseChallengeRequest) -> CreateReleaseChallengeResponse: ops::CreateReleaseChallenge;
    release_key(ReleaseKeyRequest) -> ReleaseKeyResponse: ops::ReleaseKey;
});

service!(AuditService {
    get_checkpoint(GetCheckpointRequest) -> GetCheckpointResponse: Reading<ops::GetCheckpoint>;
    get_inclusion_proof(GetInclusionProofRequest) -> GetInclusionProofResponse: Reading<ops::GetInclusionProof>;
    list_audit_leaves(ListAuditLeavesRequest) -> ListAuditLeavesResponse: Reading<ops::ListAuditLeaves>;
});

service!(SealService {
    get_seal_status(GetSealStatusRequest) -> GetSealStatusResponse: Reading<ops::GetSealStatus>;
    seal(SealRequest) -> SealResponse: Reading<ops::Seal>;
    unseal(UnsealRequest) -> UnsealResponse: ops::Unseal;
});

service!(ApplianceService {
    get_provider_status(GetProviderStatusRequest) -> GetProviderStatusResponse: Reading<ops::GetProviderStatus>;
    run_self_tests(RunSelfTestsRequest) -> RunSelfTestsResponse: Reading<ops::RunSelfTests>;
});

service!(CryptoService {
    agree_key(AgreeKeyRequest) -> AgreeKeyResponse: MakingOf<ops::AgreeKey>;
    copy_key(CopyKeyRequest) -> CopyKeyResponse: MakingOf<ops::CopyKey>;
    decapsulate_key(DecapsulateKeyRequest) -> DecapsulateKeyResponse: MakingOf<ops::DecapsulateKey>;
    derive_key(DeriveKeyRequest) -> DeriveKeyResponse: MakingOf<ops::DeriveKey>;
    encapsulate_key(EncapsulateKeyRequest) -> EncapsulateKeyResponse: MakingOf<ops::EncapsulateKey>;
    unwrap_key(UnwrapKeyRequest) -> UnwrapKeyResponse: MakingOf<ops::UnwrapKey>;
    decrypt(DecryptRequest) -> DecryptResponse: Using<ops::Decrypt>;
    digest(DigestRequest) -> DigestResponse: ops::Digest;
    generate_data_key(GenerateDataKeyRequest) -> GenerateDataKeyResponse: Using<ops::GenerateDataKey>;
    re_encrypt(ReEncryptRequest) -> ReEncryptResponse: ops::ReEncrypt;
    wrap_key(WrapKeyRequest) -> WrapKeyResponse: ops::WrapKey;
    encrypt(EncryptRequest) -> EncryptResponse: Using<ops::Encrypt>;
    generate_random(GenerateRandomRequest) -> GenerateRandomResponse: ops::GenerateRandom;
    mac_sign(MacSignRequest) -> MacSignResponse: Using<ops::MacSign>;
    mac_verify(MacVerifyRequest) -> MacVerifyResponse: Using<ops::MacVerify>;
    sign(SignRequest) -> SignResponse: Using<ops::Sign>;
    verify(VerifyRequest) -> VerifyResponse: Using<ops::Verify>;
} streams {
    type SessionStream = SessionStream;
    type StreamStream = super::StreamAnswers;

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        let caller = self.caller(&request)?;
        let results = batch::run(&self.cx, &caller, request.into_inner()).await?;
        Ok(Response::new(v1::BatchResponse { results }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<SessionStream>, Status> {
        let (peer, caller) = (Self::peer(&request)?, self.caller(&request)?);
        let (cx, stopping) = (self.cx.clone(), self.stopping.clone());
        Ok(Response::new(session::run(cx, peer, caller, request.into_inner(), stopping)))
    }

    async fn stream(
        &self,
        request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<super::StreamAnswers>, Status> {
        let (peer, caller) = (Self::peer(&request)?, self.caller(&request)?);
        let (cx, stopping) = (self.cx.clone(), self.stopping.clone());
        let alive = self.streams.subscribe();
        Ok(Response::new(stream::run(cx, peer, caller, request.into_inner(), stopping, alive)))
    }
});

/// All services, as routes.
pub(crate) fn routes(api: &Api) -> Routes {
    macro_rules! bounded {
        ($server:ident) => {
            $server::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX)
        };
    }
    let mut routes = Routes::builder();
    routes
        .add_service(bounded!(ApplianceServiceServer))
        .add_service(bounded!(AuditServiceServer))
        .add_service(
            CryptoServiceServer::new(api.clone()).max_decoding_message_size(BATCH_BYTES_MAX),
        )
        .add_service(bounded!(IdentityServiceServer))
        .add_service(bounded!(KeyManagementServiceServer))
        .add_service(bounded!(ProposalServiceServer))
        .add_service(bounded!(ReleaseServiceServer))
        .add_service(bounded!(SealServiceServer))
        .add_service(bounded!(TokenServiceServer));
    routes.routes()
}

/// Longest request of a batch.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest request: two fields of 64 KiB of data, and what goes with them.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
