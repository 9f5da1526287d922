//! The tour: what the daemon does, seen from outside, in one line each.
//!
//! It runs as a process of its own and uses only what everybody can use: the gRPC client, the
//! PKCS#11 module, the offline verifier, `ssh-keygen`. Each step says what it did and saw, and a
//! step that sees anything else than it should ends the tour with an error.

mod client;
mod quorum;
mod token;

use std::path::PathBuf;
use std::process::Stdio;

use kms_agent::attester::software::{Guest, Software};
use kms_agent::release;
use kms_client::{Client, Config};
use kms_proto::v1;
use kms_verify::LogKey;
use tokio::process::Command;

use self::client::{Exported, Refusal, expect_refusal, name};
use super::folder::Folder;
use crate::server::ServeError;

/// Arguments of `kmsd tour`.
#[derive(Debug, clap::Args)]
pub(crate) struct TourArgs {
    /// Folder of the running `kmsd dev`.
    #[arg(long)]
    state: PathBuf,
}

/// Why the tour ended early.
pub(super) type TourError = Box<dyn std::error::Error + Send + Sync>;

/// Starts the tour of the daemon that runs in this process, and waits for its end.
pub(super) async fn spawn(folder: &Folder) {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return eprintln!("kmsd: the tour cannot start: {error}"),
    };
    let mut command = Command::new(program);
    command.arg("tour").arg("--state").arg(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    // The module and the client read these, as they would from `. DIR/env`; the port is not used.
    for (name, value) in folder.environment(0).unwrap_or_default() {
        command.env(name, value);
    }
    match command.status().await {
        Ok(status) if status.success() => {
            if let Err(error) = folder.toured() {
                eprintln!("kmsd: {error}");
            }
        }
        Ok(status) => eprintln!("kmsd: the tour ended early ({status}); the daemon goes on"),
        Err(error) => eprintln!("kmsd: the tour cannot start: {error}"),
    }
}

/// Runs the tour.
///
/// # Errors
/// [`ServeError::Failed`] at the first step that sees something else than it should.
pub(crate) async fn run(args: TourArgs) -> Result<(), ServeError> {
    let folder = Folder::create(&args.state)?;
    steps(&folder).await.map_err(|error| ServeError::Failed(format!("tour: {error}")))
}

async fn steps(folder: &Folder) -> Result<(), TourError> {
    println!("\ntour: what this daemon does, seen from outside");
    let client = Client::connect(&Config::from_env()?).await?;
    let key = gated_key(&client).await?;
    let released = releases(&client, folder, &key).await?;
    token::sign(folder).await?;
    quorum::destroy(&client, folder).await?;
    audit(&client, &released).await?;
    println!("tour: done");
    Ok(())
}

/// One line of the tour.
fn say(step: u32, text: &str) {
    println!("  {step}. {text}");
}

async fn gated_key(client: &Client) -> Result<String, TourError> {
    let policy = format!(
        "package policy\n\ndefault allow := false\n\nallow if {{\n\tinput.measurement == \"{}\"\n}}\n",
        crate::wire::hex_encode(&MEASUREMENT)
    );
    let key = v1::Key {
        name: name("dev/tour-model")?,
        algorithm: v1::Algorithm::Aes256.into(),
        model: "llama-70b".to_owned(),
        release_requirement: Some(v1::ReleaseRequirement {
            kinds: vec!["snp".to_owned()],
            may_be_unestablished: vec!["revocation".to_owned()],
            policy,
            free_usages: Vec::new(),
        }),
        ..Default::default()
    };
    let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
    let made = client.call(client.keys().create_key(request)).await?;
    let key = made.key.ok_or("the daemon answered without the key")?.name;
    say(1, &format!("made {key}, released only to a workload with one measurement"));
    Ok(key)
}

async fn releases(
    client: &Client,
    folder: &Folder,
    key: &str,
) -> Result<release::ReleasedKey, TourError> {
    let bare = v1::ReleaseKeyRequest { name: format!("{key}/versions/1"), ..Default::default() };
    let answer = client.call(client.release().release_key(bare)).await;
    let Refusal { reason, message } = expect_refusal(answer, "EVIDENCE_REQUIRED")?;
    say(2, &format!("asked for it without evidence: {reason}: {message}"));

    let state = folder.attester_state();
    let debug = Software::open(&state, Guest { measurement: MEASUREMENT, debug: true })?;
    match release::receive(client, key, &debug, None).await {
        Ok(_) => return Err("a debug-mode guest was given the key".into()),
        Err(error) => say(3, &format!("asked with evidence of a debug-mode guest: {error}")),
    }

    let sound = Software::open(&state, Guest { measurement: MEASUREMENT, debug: false })?;
    let released = release::receive(client, key, &sound, None).await?;
    say(
        4,
        &format!(
            "asked with good evidence: {} bytes, sealed by {} to the key in the evidence, opened by it",
            released.bytes.len(),
            released.receipt.suite
        ),
    );
    Ok(released)
}

/// Verifies the log and the release's place in it, with nothing but the log's public key.
async fn audit(client: &Client, released: &release::ReleasedKey) -> Result<(), TourError> {
    let key: &LogKey = &released.log_key;
    let mut exported = Exported::fetch(client).await?;
    let report = kms_verify::verify_log(&mut exported, key, None)?;
    if !report.accepted {
        return Err(format!("the audit log does not verify: {}", report.reasons.join("; ")).into());
    }
    let index = released.receipt.audit_index;
    let request = v1::GetInclusionProofRequest { index };
    let proof = client.call(client.audit().get_inclusion_proof(request)).await?;
    let hashes: Result<Vec<_>, _> =
        proof.hashes.iter().map(|hash| kms_verify::Digest::try_from(hash.as_slice())).collect();
    if !kms_verify::verify_inclusion(&proof.leaf, index, &hashes?, &proof.checkpoint, key) {
        return Err("the release's inclusion proof does not verify".into());
    }
    released.receipt.verify(key)?;
    say(
        7,
        &format!(
            "verified the audit log offline: {} leaves, {} granted, {} denied; leaf {index} is the release, proven",
            report.size, report.total.granted, report.total.denied
        ),
    );
    Ok(())
}

/// The measurement of the tour's imaginary workload.
const MEASUREMENT: [u8; 48] = [0x4b; 48];
