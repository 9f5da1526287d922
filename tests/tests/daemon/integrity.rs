//! The programs against their signed manifest, before anything is served and with every self test; and
//! the error state, in which nothing is served but status and zeroisation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, Config};
use kms_tests::process::program;
use kms_tests::request::{create_key, sign, step};
use kms_tests::{Daemon, daemon, refused_for};
use sha2::{Digest as _, Sha256};

const REASON: &str = "SELF_TEST_FAILED";
/// RFC 8410 §10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

/// Copies of the programs in a folder of their own, and a manifest of them and of the daemon that runs.
struct Signed {
    folder: tempfile::TempDir,
    public_key: String,
}

impl Signed {
    fn new() -> Self {
        let folder = daemon::temporary();
        for name in PROGRAMS {
            fs::copy(program(name), folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("release.pem"), KEY).unwrap();
        let running = program("kmsd").display().to_string();
        let files: Vec<&str> = PROGRAMS.iter().copied().chain([running.as_str()]).collect();
        let public_key = create(folder.path(), "kmsd.manifest", &files);
        Self { folder, public_key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self) -> Vec<String> {
        let manifest = self.path("kmsd.manifest").display().to_string();
        ["--manifest", &manifest, "--manifest-key", &self.public_key].map(str::to_owned).to_vec()
    }

    fn verify(&self) -> Output {
        let manifest = self.path("kmsd.manifest");
        kmsd(&["manifest", "verify", "--public-key", &self.public_key, manifest.to_str().unwrap()])
    }
}

fn kmsd(arguments: &[&str]) -> Output {
    Command::new(program("kmsd")).args(arguments).env_clear().output().unwrap()
}

/// Makes a manifest in `folder` and gives the key that verifies it.
fn create(folder: &Path, name: &str, files: &[&str]) -> String {
    let [key, out] = ["release.pem", name].map(|name| folder.join(name).display().to_string());
    let arguments = ["manifest", "create", "--key", &key, "--out", &out];
    let made = kmsd(&[arguments.as_slice(), files].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let told = String::from_utf8(made.stdout).unwrap();
    let line = told.lines().find(|line| line.starts_with("public_key")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// Flips one bit of a file, at a place that its content decides.
fn flip(path: &Path, number: u8) {
    let mut bytes = fs::read(path).unwrap();
    let digest = Sha256::new().chain_update(&bytes).chain_update([number]).finalize();
    let random = u64::from_le_bytes(digest[..8].try_into().unwrap());
    let at = usize::try_from(random % bytes.len() as u64).unwrap();
    bytes[at] ^= 1 << (number % 8);
    fs::write(path, bytes).unwrap();
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_not_what_was_signed_serve_nothing() {
    let signed = Signed::new();
    assert!(signed.verify().status.success());
    let mut daemon = Daemon::start_with(&borrowed(&signed.arguments()));
    let status = status(&daemon.client().await).await;
    let integrity = status.integrity.unwrap();
    assert_eq!(integrity.key, signed.public_key);
    assert!(integrity.last_intact_time.is_some() && !status.error_state);
    daemon.terminate();
    for (number, name) in (1..).zip(PROGRAMS) {
        let path = signed.path(name);
        let whole = fs::read(&path).unwrap();
        flip(&path, number);
        let ended = daemon.restart_refused();
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
        assert_eq!(ended.status.code(), Some(1));
        assert!(!signed.verify().status.success());
        fs::remove_file(&path).unwrap();
        assert!(daemon.restart_refused().stderr.contains(name));
        fs::write(&path, whole).unwrap();
    }
    // A manifest that speaks of everything but the program that runs.
    create(signed.folder.path(), "others.manifest", &PROGRAMS);
    let others = signed.path("others.manifest").display().to_string();
    let arguments = ["--manifest", &others, "--manifest-key", &signed.public_key];
    let ended = daemon.restart_refused_with(&arguments);
    assert!(ended.stderr.contains("none of those"), "{}", ended.stderr);
    // Another signer, an edited manifest, none at all.
    let other = signed.public_key.replacen("kms+", "kms2+", 1);
    let manifest = signed.path("kmsd.manifest");
    let text = manifest.display().to_string();
    let refused = daemon.restart_refused_with(&["--manifest", &text, "--manifest-key", &other]);
    assert!(refused.stderr.contains("integrity.public_key"), "{}", refused.stderr);
    let whole = fs::read_to_string(&manifest).unwrap();
    let digit = whole.find('\n').unwrap() + 1;
    let edited = if whole.as_bytes()[digit] == b'0' { "1" } else { "0" };
    let mut changed = whole.clone();
    changed.replace_range(digit..=digit, edited);
    fs::write(&manifest, changed).unwrap();
    let refused = daemon.restart_refused_with(&borrowed(&signed.arguments()));
    assert!(refused.stderr.contains("not signed by the given key"), "{}", refused.stderr);
    assert!(refused.stderr.contains("from the same release"), "{}", refused.stderr);
    fs::remove_file(&manifest).unwrap();
    assert!(daemon.restart_refused().stderr.contains("kmsd.manifest"));
    fs::write(&manifest, whole).unwrap();
    daemon.restart();
}

#[test]
fn a_manifest_that_cannot_be_made_is_refused_by_the_name_of_what_is_wrong() {
    let folder = daemon::temporary();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("release.pem"), KEY).unwrap();
    fs::write(path("other.pem"), "no key").unwrap();
    fs::write(path("program"), "a program").unwrap();
    let [good, bad, out] = ["release.pem", "other.pem", "kmsd.manifest"].map(path);
    for (arguments, expected) in [
        (["--key", &bad, "--out", &out, "program"].as_slice(), format!("{bad}: expected an")),
        (
            &["--key", &path("none.pem"), "--out", &out, "program"],
            format!("{}: ", path("none.pem")),
        ),
        (&["--key", &good, "--out", &out, "gone"], format!("{}: ", path("gone"))),
        (&["--key", &good, "--key-name", "a b", "--out", &out, "program"], "--key-name".to_owned()),
        (&["--key", &good, "--out", &out, "program", "program"], "each named once".to_owned()),
    ] {
        let ended = kmsd(&[&["manifest", "create"], arguments].concat());
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains(&expected) && !told.contains("kmsd.manifest"), "{expected}: {told}");
        assert_eq!(ended.status.code(), Some(1));
        assert!(!Path::new(&out).exists());
    }
}

async fn status(client: &Client) -> v1::ProviderStatus {
    let request = v1::GetProviderStatusRequest {};
    client.call(client.appliance().get_provider_status(request)).await.unwrap().status.unwrap()
}

/// Each method with an empty request, in the error state: refused before anything else is looked at. Gives
/// their names.
async fn refused_in_error_state(client: &Client) -> BTreeSet<&'static str> {
    let mut tried = BTreeSet::new();
    macro_rules! refused {
        ($($service:ident $method:ident $name:ident $request:ident,)+) => {$(
            let request = v1::$request::default();
            let answer = client.call(client.$service().$method(request)).await;
            let refusal = refused_for(answer, REASON);
            assert!(refusal.audit_index.is_some(), stringify!($name));
            tried.insert(stringify!($name));
        )+};
    }
    refused! {
        appliance run_self_tests RunSelfTests RunSelfTestsRequest,
        audit list_audit_leaves ListAuditLeaves ListAuditLeavesRequest,
        audit get_inclusion_proof GetInclusionProof GetInclusionProofRequest,
        crypto encrypt Encrypt EncryptRequest,
        crypto decrypt Decrypt DecryptRequest,
        crypto sign Sign SignRequest,
        crypto verify Verify VerifyRequest,
        crypto mac_sign MacSign MacSignRequest,
        crypto mac_verify MacVerify MacVerifyRequest,
        crypto digest Digest DigestRequest,
        crypto generate_random GenerateRandom GenerateRandomRequest,
        crypto re_encrypt ReEncrypt ReEncryptRequest,
        crypto generate_data_key GenerateDataKey GenerateDataKeyRequest,
        crypto wrap_key WrapKey WrapKeyRequest,
        crypto unwrap_key UnwrapKey UnwrapKeyRequest,
        crypto derive_key DeriveKey DeriveKeyRequest,
        crypto agree_key AgreeKey AgreeKeyRequest,
        crypto encapsulate_key EncapsulateKey EncapsulateKeyRequest,
        crypto decapsulate_key DecapsulateKey DecapsulateKeyRequest,
        crypto copy_key CopyKey CopyKeyRequest,
        identity add_credential AddCredential AddCredentialRequest,
        identity create_user CreateUser CreateUserRequest,
        identity delete_binding DeleteBinding DeleteBindingRequest,
        identity delete_user DeleteUser DeleteUserRequest,
        identity disable_user DisableUser DisableUserRequest,
        identity enable_user EnableUser EnableUserRequest,
        identity get_user GetUser GetUserRequest,
        identity list_bindings ListBindings ListBindingsRequest,
        identity revoke_credential RevokeCredential RevokeCredentialRequest,
        identity list_users ListUsers ListUsersRequest,
        identity create_binding CreateBinding CreateBindingRequest,
        keys create_key_ring CreateKeyRing CreateKeyRingRequest,
        keys get_key_ring GetKeyRing GetKeyRingRequest,
        keys list_key_rings ListKeyRings ListKeyRingsRequest,
        keys create_key CreateKey CreateKeyRequest,
        keys get_key GetKey GetKeyRequest,
        keys list_keys ListKeys ListKeysRequest,
        keys update_key UpdateKey UpdateKeyRequest,
        keys create_key_version CreateKeyVersion CreateKeyVersionRequest,
        keys get_key_version GetKeyVersion GetKeyVersionRequest,
        keys list_key_versions ListKeyVersions ListKeyVersionsRequest,
        keys get_public_key GetPublicKey GetPublicKeyRequest,
        keys activate_key_version ActivateKeyVersion ActivateKeyVersionRequest,
        keys suspend_key_version SuspendKeyVersion SuspendKeyVersionRequest,
        keys resume_key_version ResumeKeyVersion ResumeKeyVersionRequest,
        keys deactivate_key_version DeactivateKeyVersion DeactivateKeyVersionRequest,
        keys compromise_key_version CompromiseKeyVersion CompromiseKeyVersionRequest,
        keys schedule_destroy_key_version ScheduleDestroyKeyVersion ScheduleDestroyKeyVersionRequest,
        keys restore_key_version RestoreKeyVersion RestoreKeyVersionRequest,
        keys undo_key_version_step UndoKeyVersionStep UndoKeyVersionStepRequest,
        keys enable_key_version EnableKeyVersion EnableKeyVersionRequest,
        keys disable_key_version DisableKeyVersion DisableKeyVersionRequest,
        keys set_key_version_dates SetKeyVersionDates SetKeyVersionDatesRequest,
        keys delete_key DeleteKey DeleteKeyRequest,
        keys list_key_history ListKeyHistory ListKeyHistoryRequest,
        keys set_key_ring_policy SetKeyRingPolicy SetKeyRingPolicyRequest,
        keys set_key_trusted SetKeyTrusted SetKeyTrustedRequest,
        keys set_key_certificate SetKeyCertificate SetKeyCertificateRequest,
        keys create_import_job CreateImportJob CreateImportJobRequest,
        keys get_import_job GetImportJob GetImportJobRequest,
        keys import_key_version ImportKeyVersion ImportKeyVersionRequest,
        keys export_key_version ExportKeyVersion ExportKeyVersionRequest,
        keys get_key_statement GetKeyStatement GetKeyStatementRequest,
        proposals create_proposal CreateProposal CreateProposalRequest,
        proposals get_proposal GetProposal GetProposalRequest,
        proposals list_proposals ListProposals ListProposalsRequest,
        proposals approve_proposal ApproveProposal ApproveProposalRequest,
        proposals cancel_proposal CancelProposal CancelProposalRequest,
        proposals execute_proposal ExecuteProposal ExecuteProposalRequest,
        release create_release_challenge CreateReleaseChallenge CreateReleaseChallengeRequest,
        release release_key ReleaseKey ReleaseKeyRequest,
        seal unseal Unseal UnsealRequest,
        token list_tokens ListTokens ListTokensRequest,
        token find_objects FindObjects FindObjectsRequest,
        token set_token_pin SetTokenPin SetTokenPinRequest,
    }
    tried
}

/// Goal: no method, old or new, gives anything out once a self test has failed.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_error_state_only_status_and_zeroisation_are_served() {
    let signed = Signed::new();
    let mut daemon = Daemon::start_with(&borrowed(&signed.arguments()));
    let client = daemon.client().await;
    create_key(&client, "dev/error-state", Algorithm::EcP256).await;
    let gone = create_key(&client, "dev/error-state-gone", Algorithm::EcP256).await.name;
    step(&client, "Deactivate", &gone).await.unwrap();
    let officer = daemon.officer_client().await;
    let running = v1::StreamStart {
        name: "dev".to_owned(),
        operation: Some(v1::stream_start::Operation::Digest(v1::StreamDigest {
            hash: v1::Hash::Sha256.into(),
        })),
        ..Default::default()
    };
    flip(&signed.path("kmsctl"), 7);
    sign(&client, "dev/error-state", b"before anybody looks").await.unwrap();
    let tested = client.call(client.appliance().run_self_tests(v1::RunSelfTestsRequest {})).await;
    assert!(tested.unwrap().status.unwrap().error_state);

    let mut tried = refused_in_error_state(&client).await;
    let item = v1::sign_request::Data::Message(b"m".to_vec());
    let item = v1::SignRequest {
        name: "dev/error-state".to_owned(),
        data: Some(item),
        ..Default::default()
    };
    let items = vec![v1::BatchItem { request: Some(v1::batch_item::Request::Sign(item.clone())) }];
    let batch = client.call(client.crypto().batch(v1::BatchRequest { items })).await.unwrap();
    match &batch.results[0].response {
        Some(v1::batch_result::Response::Error(error)) => assert_eq!(error.reason, REASON),
        other => panic!("{other:?}"),
    }
    tried.insert("Batch");
    let mut given = Vec::new();
    let streamed = client.stream(running, &b"data"[..], &mut given, |_| ()).await;
    let refused = format!("{:?}", streamed.err().unwrap());
    assert!(refused.contains(REASON) && given.is_empty(), "{refused}");
    tried.insert("Stream");
    let config = daemon.unix();
    // The blocking client wants a thread that runs nothing else.
    let session = std::thread::spawn(move || session_is_refused(&config, item)).join();
    assert!(session.is_ok(), "{}", daemon.output());
    tried.insert("Session");

    // What is served all the same: who and how it stands, and the end of keys.
    assert!(status(&client).await.error_state);
    client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
    client.call(client.audit().get_checkpoint(v1::GetCheckpointRequest {})).await.unwrap();
    client.call(client.seal().get_seal_status(v1::GetSealStatusRequest {})).await.unwrap();
    let destroyed = step(&client, "Destroy", &gone).await.unwrap();
    assert_eq!(destroyed.state(), v1::State::Destroyed);
    client.call(officer.seal().seal(v1::SealRequest {})).await.unwrap();
    tried.extend(["GetProviderStatus", "WhoAmI", "GetCheckpoint", "GetSealStatus"]);
    tried.extend(["DestroyKeyVersion", "Seal"]);
    let contract = methods();
    assert!(contract.len() >= 76, "only {} methods were found", contract.len());
    let tried: BTreeSet<String> = tried.into_iter().map(str::to_owned).collect();
    assert_eq!(tried, contract);

    // Nor does it come back as long as the program is what it is.
    daemon.terminate();
    assert!(daemon.restart_refused().stderr.contains("kmsctl"));
}

fn session_is_refused(config: &Config, item: v1::SignRequest) {
    let mut session = Session::connect(config).unwrap();
    let object = v1::CreateObjectKeyRequest { ring: "dev".to_owned(), ..Default::default() };
    let all = [
        Asked::ListTokens(v1::ListTokensRequest {}),
        Asked::LoginToken(v1::LoginTokenRequest::default()),
        Asked::FindObjects(v1::FindObjectsRequest::default()),
        Asked::CreateObjectKey(object),
        Asked::Sign(item),
        Asked::GenerateRandom(v1::GenerateRandomRequest::default()),
        Asked::Digest(v1::DigestRequest::default()),
        Asked::UnwrapKey(v1::UnwrapKeyRequest::default()),
    ];
    for (number, asked) in all.into_iter().enumerate() {
        match session.call(asked) {
            Err(ClientError::Refused { reason, .. }) => assert_eq!(reason, REASON, "{number}"),
            other => panic!("request {number}: {:?}", other.err()),
        }
    }
}

/// Every method of the contract.
fn methods() -> BTreeSet<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/kms/v1");
    let files = fs::read_dir(folder).unwrap();
    let text: String =
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    lines.map(|line| line.split('(').next().unwrap().to_owned()).collect()
}

const PROGRAMS: [&str; 3] = ["kmsctl", "kms-agent", "libkms_pkcs11.so"];
