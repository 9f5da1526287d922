//! Which method runs which operation.

use kms_proto::v1;
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
use super::session::{self, SessionStream};
use crate::ops;
use crate::ops::{Reading, Using};

macro_rules! service {
    (
        $service:ident { $($method:ident($request:ident) -> $response:ident: $operation:ty;)+ }
        $(streams { $($streams:tt)+ })?
        $(later { $($later:ident($asked:ident) -> $answered:ident;)+ })?
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
            $($(
                async fn $later(
                    &self,
                    _request: Request<v1::$asked>,
                ) -> Result<Response<v1::$answered>, Status> {
                    Err(Status::unimplemented("not served by this version"))
                }
            )+)?
            $($($streams)+)?
        }
    };
}

service!(KeyManagementService {
    activate_key_version(ActivateKeyVersionRequest) -> ActivateKeyVersionResponse: ops::ActivateKeyVersion;
    compromise_key_version(CompromiseKeyVersionRequest) -> CompromiseKeyVersionResponse: ops::CompromiseKeyVersion;
    create_import_job(CreateImportJobRequest) -> CreateImportJobResponse: ops::CreateImportJob;
    create_key(CreateKeyRequest) -> CreateKeyResponse: ops::CreateKey;
    create_key_ring(CreateKeyRingRequest) -> CreateKeyRingResponse: ops::CreateKeyRing;
    create_key_version(CreateKeyVersionRequest) -> CreateKeyVersionResponse: ops::CreateKeyVersion;
    deactivate_key_version(DeactivateKeyVersionRequest) -> DeactivateKeyVersionResponse: ops::DeactivateKeyVersion;
    destroy_key_version(DestroyKeyVersionRequest) -> DestroyKeyVersionResponse: ops::DestroyKeyVersion;
    export_key_version(ExportKeyVersionRequest) -> ExportKeyVersionResponse: ops::ExportKeyVersion;
    get_import_job(GetImportJobRequest) -> GetImportJobResponse: Reading<ops::GetImportJob>;
    get_key(GetKeyRequest) -> GetKeyResponse: Reading<ops::GetKey>;
    get_key_ring(GetKeyRingRequest) -> GetKeyRingResponse: Reading<ops::GetKeyRing>;
    get_key_statement(GetKeyStatementRequest) -> GetKeyStatementResponse: ops::GetKeyStatement;
    get_key_version(GetKeyVersionRequest) -> GetKeyVersionResponse: Reading<ops::GetKeyVersion>;
    get_public_key(GetPublicKeyRequest) -> GetPublicKeyResponse: Reading<ops::GetPublicKey>;
    list_key_rings(ListKeyRingsRequest) -> ListKeyRingsResponse: Reading<ops::ListKeyRings>;
    list_key_versions(ListKeyVersionsRequest) -> ListKeyVersionsResponse: Reading<ops::ListKeyVersions>;
    list_keys(ListKeysRequest) -> ListKeysResponse: Reading<ops::ListKeys>;
    resume_key_version(ResumeKeyVersionRequest) -> ResumeKeyVersionResponse: ops::ResumeKeyVersion;
    suspend_key_version(SuspendKeyVersionRequest) -> SuspendKeyVersionResponse: ops::SuspendKeyVersion;
    update_key(UpdateKeyRequest) -> UpdateKeyResponse: ops::UpdateKey;
} later {
    delete_key(DeleteKeyRequest) -> DeleteKeyResponse;
    disable_key_version(DisableKeyVersionRequest) -> DisableKeyVersionResponse;
    enable_key_version(EnableKeyVersionRequest) -> EnableKeyVersionResponse;
    import_key_version(ImportKeyVersionRequest) -> ImportKeyVersionResponse;
    list_key_history(ListKeyHistoryRequest) -> ListKeyHistoryResponse;
    restore_key_version(RestoreKeyVersionRequest) -> RestoreKeyVersionResponse;
    schedule_destroy_key_version(ScheduleDestroyKeyVersionRequest) -> ScheduleDestroyKeyVersionResponse;
    set_key_certificate(SetKeyCertificateRequest) -> SetKeyCertificateResponse;
    set_key_ring_policy(SetKeyRingPolicyRequest) -> SetKeyRingPolicyResponse;
    set_key_trusted(SetKeyTrustedRequest) -> SetKeyTrustedResponse;
    set_key_version_dates(SetKeyVersionDatesRequest) -> SetKeyVersionDatesResponse;
    undo_key_version_step(UndoKeyVersionStepRequest) -> UndoKeyVersionStepResponse;
});

service!(TokenService {
    find_objects(FindObjectsRequest) -> FindObjectsResponse: Reading<ops::FindObjects>;
    list_tokens(ListTokensRequest) -> ListTokensResponse: Reading<ops::ListTokens>;
    set_token_pin(SetTokenPinRequest) -> SetTokenPinResponse: ops::SetTokenPin;
});

service!(IdentityService {
    create_binding(CreateBindingRequest) -> CreateBindingResponse: ops::CreateBinding;
    create_user(CreateUserRequest) -> CreateUserResponse: ops::CreateUser;
    list_users(ListUsersRequest) -> ListUsersResponse: Reading<ops::ListUsers>;
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

service!(CryptoService {
    decrypt(DecryptRequest) -> DecryptResponse: Using<ops::Decrypt>;
    encrypt(EncryptRequest) -> EncryptResponse: Using<ops::Encrypt>;
    generate_random(GenerateRandomRequest) -> GenerateRandomResponse: ops::GenerateRandom;
    mac_sign(MacSignRequest) -> MacSignResponse: Using<ops::MacSign>;
    mac_verify(MacVerifyRequest) -> MacVerifyResponse: Using<ops::MacVerify>;
    sign(SignRequest) -> SignResponse: Using<ops::Sign>;
    verify(VerifyRequest) -> VerifyResponse: Using<ops::Verify>;
} streams {
    type SessionStream = SessionStream;
    type StreamStream = super::StreamAnswers;

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
        _request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<super::StreamAnswers>, Status> {
        Err(Status::unimplemented("not served by this version"))
    }
} later {
    agree_key(AgreeKeyRequest) -> AgreeKeyResponse;
    batch(BatchRequest) -> BatchResponse;
    copy_key(CopyKeyRequest) -> CopyKeyResponse;
    decapsulate_key(DecapsulateKeyRequest) -> DecapsulateKeyResponse;
    derive_key(DeriveKeyRequest) -> DeriveKeyResponse;
    digest(DigestRequest) -> DigestResponse;
    encapsulate_key(EncapsulateKeyRequest) -> EncapsulateKeyResponse;
    generate_data_key(GenerateDataKeyRequest) -> GenerateDataKeyResponse;
    re_encrypt(ReEncryptRequest) -> ReEncryptResponse;
    unwrap_key(UnwrapKeyRequest) -> UnwrapKeyResponse;
    wrap_key(WrapKeyRequest) -> WrapKeyResponse;
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
        .add_service(bounded!(AuditServiceServer))
        .add_service(bounded!(CryptoServiceServer))
        .add_service(bounded!(IdentityServiceServer))
        .add_service(bounded!(KeyManagementServiceServer))
        .add_service(bounded!(ProposalServiceServer))
        .add_service(bounded!(ReleaseServiceServer))
        .add_service(bounded!(SealServiceServer))
        .add_service(bounded!(TokenServiceServer));
    routes.routes()
}

/// Longest request: two fields of 64 KiB of data, and what goes with them.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
