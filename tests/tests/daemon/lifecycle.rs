//! The life of a version, asked of the daemon and held against the rules' own tables.

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};
use kms_core::algorithm::Usage;
use kms_core::lifecycle::{self, Allowance, State, Transition};
use kms_tests::request::{create, key, sign, step};
use kms_tests::{Daemon, log, refused_for};

/// The states that a version can be brought to over the API, and how.
const REACHABLE: [(State, &[&str]); 7] = [
    (State::PreActive, &[]),
    (State::Active, &["Activate"]),
    (State::Suspended, &["Activate", "Suspend"]),
    (State::Deactivated, &["Activate", "Deactivate"]),
    (State::DestroyScheduled, &["Activate", "Deactivate", "ScheduleDestroy"]),
    (State::Destroyed, &["Activate", "Deactivate", "Destroy"]),
    (State::Compromised, &["Activate", "Compromise"]),
];

const STEPS: [(&str, Transition); 8] = [
    ("Activate", Transition::Activate),
    ("Compromise", Transition::Compromise),
    ("Deactivate", Transition::Deactivate),
    ("Destroy", Transition::Destroy),
    ("Restore", Transition::Restore),
    ("Resume", Transition::Resume),
    ("ScheduleDestroy", Transition::ScheduleDestroy),
    ("Suspend", Transition::Suspend),
];

async fn pre_active(client: &Client, name: &str, algorithm: Algorithm) -> v1::KeyVersion {
    let request = v1::CreateKeyRequest { pre_active: true, ..key(name, algorithm) };
    create(client, request).await
}

#[tokio::test]
async fn every_step_from_every_state_is_taken_or_refused_as_the_rules_say() {
    let client = Daemon::shared().client().await;
    for (state, way) in REACHABLE {
        for (verb, transition) in STEPS {
            let name = format!("dev/step-{}-{verb}", state.as_str().to_lowercase()).to_lowercase();
            let version = pre_active(&client, &name, Algorithm::GenericSecret).await.name;
            for step_name in way {
                step(&client, step_name, &version).await.unwrap();
            }
            let answer = step(&client, verb, &version).await;
            let expected = lifecycle::next(state, transition);
            let stands = match expected {
                Ok(next) => {
                    assert_eq!(shown(&answer.unwrap()), next.as_str(), "{verb} from {state}");
                    next
                }
                Err(_) => {
                    let refusal = refused_for(answer, "ILLEGAL_TRANSITION");
                    let action = format!("{verb}KeyVersion");
                    log::assert_recorded(&client, &refusal, &action).await;
                    state
                }
            };
            let request = v1::GetKeyVersionRequest { name: version };
            let stored = client.call(client.keys().get_key_version(request)).await.unwrap();
            assert_eq!(shown(&stored.version.unwrap()), stands.as_str(), "{verb} from {state}");
        }
    }
}

fn shown(version: &v1::KeyVersion) -> String {
    version.state().as_str_name().trim_start_matches("STATE_").to_owned()
}

#[tokio::test]
async fn every_use_in_every_state_is_done_or_refused_as_the_rules_say() {
    let client = Daemon::shared().client().await;
    for (state, way) in REACHABLE {
        for (algorithm, usages) in [
            (Algorithm::EcP256, [Usage::Sign, Usage::Verify]),
            (Algorithm::Aes256, [Usage::Encrypt, Usage::Decrypt]),
            (Algorithm::GenericSecret, [Usage::MacSign, Usage::MacVerify]),
        ] {
            let name = format!("dev/use-{}-{}", state.as_str(), algorithm as i32).to_lowercase();
            let version = pre_active(&client, &name, algorithm).await.name;
            // What is to be opened or checked is made while the version is active.
            let mut made = Made::default();
            for step_name in way {
                step(&client, step_name, &version).await.unwrap();
                if *step_name == "Activate" {
                    made = Made::by(&client, &version, algorithm).await;
                }
            }
            for usage in usages {
                let answer = made.used(&client, &version, usage).await;
                match state.allows(usage) {
                    Allowance::Allowed => assert!(answer.unwrap(), "{usage:?} in {state}"),
                    Allowance::UnderQuorum => drop(refused_for(answer, "NEEDS_APPROVAL")),
                    _ => {
                        let refusal = refused_for(answer, "STATE_REFUSES");
                        log::assert_recorded(&client, &refusal, &format!("{usage:?}")).await;
                    }
                }
            }
        }
    }
}

/// Something that an active version made.
struct Made {
    /// Signature, MAC or ciphertext.
    bytes: Vec<u8>,
    iv: Vec<u8>,
}

/// Well-formed, for versions that were never active.
impl Default for Made {
    fn default() -> Self {
        Self { bytes: vec![0; 32], iv: vec![0; 12] }
    }
}

impl Made {
    async fn by(client: &Client, version: &str, algorithm: Algorithm) -> Self {
        let name = version.to_owned();
        let (bytes, iv) = match algorithm {
            Algorithm::Aes256 => {
                let request =
                    v1::EncryptRequest { name, plaintext: DATA.to_vec(), ..Default::default() };
                let made = client.call(client.crypto().encrypt(request)).await.unwrap();
                (made.ciphertext, made.initialization_vector)
            }
            Algorithm::GenericSecret => {
                let request =
                    v1::MacSignRequest { name, data: DATA.to_vec(), ..Default::default() };
                (client.call(client.crypto().mac_sign(request)).await.unwrap().mac, Vec::new())
            }
            _ => (sign(client, version, DATA).await.unwrap().signature, Vec::new()),
        };
        Self { bytes, iv }
    }

    /// Uses the version; `true` when the outcome is the right one.
    async fn used(
        &self,
        client: &Client,
        version: &str,
        usage: Usage,
    ) -> Result<bool, ClientError> {
        let (name, data) = (version.to_owned(), DATA.to_vec());
        let mut crypto = client.crypto();
        Ok(match usage {
            Usage::Decrypt => {
                let request = v1::DecryptRequest {
                    name,
                    initialization_vector: self.iv.clone(),
                    ciphertext: self.bytes.clone(),
                    ..Default::default()
                };
                client.call(crypto.decrypt(request)).await?.plaintext == DATA
            }
            Usage::Encrypt => {
                let request = v1::EncryptRequest { name, plaintext: data, ..Default::default() };
                client.call(crypto.encrypt(request)).await?.ciphertext.len() == DATA.len() + 16
            }
            Usage::MacSign => {
                let request = v1::MacSignRequest { name, data, ..Default::default() };
                client.call(crypto.mac_sign(request)).await?.mac.len() == 32
            }
            Usage::MacVerify => {
                let request = v1::MacVerifyRequest {
                    name,
                    data,
                    mac: self.bytes.clone(),
                    ..Default::default()
                };
                client.call(crypto.mac_verify(request)).await?.valid
            }
            Usage::Sign => !sign(client, version, DATA).await?.signature.is_empty(),
            Usage::Verify => {
                let data = Some(v1::verify_request::Data::Message(data));
                let request = v1::VerifyRequest {
                    name,
                    data,
                    signature: self.bytes.clone(),
                    ..Default::default()
                };
                client.call(crypto.verify(request)).await?.valid
            }
            other => panic!("{other:?} is not asked for here"),
        })
    }
}

const DATA: &[u8] = b"used";
