//! The door that programs use: `CryptoService` and `KeyManagementService` over the Unix socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use kms_client::{Client, ClientError, v1};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{CipherParameters, Provider as _};
use kms_tests::Daemon;
use kms_tests::request::{compatible_ring, import_job, step};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::catalog::{Case, Deed, Key, files, is_secret, sample, there};
use crate::published::material;
use crate::tally::{Outcome, Table};

/// The compatible ring that the vectors' keys come into: it takes the caller's IVs and RSA PKCS#1 v1.5.
pub(crate) const RING: &str = "vectors";
/// What may stand behind a vector that wants to be refused.
const RIGHTLY: &[&str] = &["CIPHERTEXT_REFUSED", "INVALID_ARGUMENT"];
/// What is asked at the same time.
const IN_FLIGHT: usize = 24;
/// Items of a batch; the daemon takes 128.
const BATCH: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_vectors_through_grpc() {
    if !there() {
        return;
    }
    let daemon = Daemon::start();
    let door = Arc::new(Door::open(&daemon).await);
    let table = Arc::new(Table::new("gRPC", RIGHTLY));
    let mut at_work = JoinSet::new();
    let mut found = 0;
    for (name, read) in files() {
        if at_work.len() == FILES_AT_ONCE {
            at_work.join_next().await.unwrap().unwrap();
        }
        let (door, table) = (door.clone(), table.clone());
        let Some(cases) = read(&name) else { continue };
        found += 1;
        at_work.spawn(async move {
            let (cases, left) = sample(cases);
            let outcomes = door.run(&cases).await;
            table.judge(&name, &cases, &outcomes, left);
        });
    }
    while let Some(done) = at_work.join_next().await {
        done.unwrap();
    }
    // Why something failed, only its log says.
    daemon
        .output()
        .lines()
        .filter(|line| line.contains("ERROR"))
        .for_each(|line| println!("{line}"));
    table.finish(found);
}

const FILES_AT_ONCE: usize = 4;
pub(crate) const WRAPPING_BYTES: [u8; 32] = [0x4b; 32];

/// Connections, a key that wraps what comes in, and a name for every key.
pub(crate) struct Door {
    pub(crate) client: Client,
    /// The version, and its bytes.
    wrapping: (String, Vec<u8>),
    job: v1::ImportJob,
    flight: Arc<Semaphore>,
}

/// A version, or by which name it was refused.
type Imported = Result<v1::KeyVersion, String>;

impl Door {
    pub(crate) async fn open(daemon: &Daemon) -> Self {
        compatible_ring(daemon, RING).await;
        let client = daemon.client().await;
        let method = v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp;
        let job = import_job(&client, RING, method).await;
        let bytes = WRAPPING_BYTES.to_vec();
        let flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut door = Self { client, wrapping: (String::new(), bytes.clone()), job, flight };
        let key = Key::Secret(Algorithm::Aes256, bytes);
        door.wrapping.0 = door.import_by_job("wrapping", &key).await.unwrap().name;
        door
    }

    /// A door that another process opened, for imports of public keys.
    pub(crate) fn attach(client: Client, wrapping: String) -> Self {
        let flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let wrapping = (wrapping, WRAPPING_BYTES.to_vec());
        Self { client, wrapping, job: v1::ImportJob::default(), flight }
    }

    /// The key that wraps what comes in.
    pub(crate) fn wrapping(&self) -> &str {
        &self.wrapping.0
    }

    /// `bytes` under the key that wraps what comes in.
    pub(crate) fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        // Nothing at all has no wrapping; one byte is no key of any algorithm either.
        wrap(&self.wrapping.1, if bytes.is_empty() { &[0] } else { bytes })
    }

    /// Does the deeds of a file, each on its key.
    async fn run(self: &Arc<Self>, cases: &[Case]) -> Vec<Outcome> {
        let keys = self.import_all(cases).await;
        let mut outcomes = vec![Outcome::Unasked("no request has a place for it"); cases.len()];
        let (mut items, mut singles) = (Vec::new(), JoinSet::new());
        for (at, case) in cases.iter().enumerate() {
            if matches!(case.deed, Deed::Nothing) {
                continue;
            }
            let version = match &keys[&case.key] {
                Ok(version) => version.clone(),
                Err(reason) => {
                    outcomes[at] = Outcome::Refused(reason.clone());
                    continue;
                }
            };
            if let Some(item) = item(&version.name, &case.deed) {
                items.push((at, item));
                continue;
            }
            let (door, deed) = (self.clone(), case.deed.clone());
            singles.spawn(async move {
                let _held = door.flight.clone().acquire_owned().await.unwrap();
                (at, door.single(&version, deed).await)
            });
        }
        for (at, outcome) in self.batches(items, |at, answer| told(&cases[at].deed, answer)).await {
            outcomes[at] = outcome;
        }
        let mut made = Vec::new();
        while let Some(done) = singles.join_next().await {
            match done.unwrap() {
                (at, Single::Known(outcome)) => outcomes[at] = outcome,
                (at, Single::Made { name, tag }) => {
                    let deed = Deed::Mac {
                        mechanism: Mechanism::HmacSha256,
                        data: COMPARED.to_vec(),
                        tag,
                    };
                    made.push((at, item(&name, &deed).unwrap()));
                }
            }
        }
        let compared = self.batches(made, |_, answer| match answer {
            Answer::MacVerify(v1::MacVerifyResponse { valid: true, .. }) => Outcome::Done,
            Answer::MacVerify(_) => Outcome::Other,
            other => panic!("{other:?}"),
        });
        for (at, outcome) in compared.await {
            outcomes[at] = outcome;
        }
        outcomes
    }

    /// Imports every key of the cases once: the first by an import job, the others wrapped.
    async fn import_all(self: &Arc<Self>, cases: &[Case]) -> BTreeMap<Key, Imported> {
        let mut importing = JoinSet::new();
        let mut seen = std::collections::BTreeSet::new();
        let asked = cases.iter().filter(|case| !matches!(case.deed, Deed::Nothing));
        for (number, key) in
            asked.map(|case| &case.key).filter(|key| seen.insert((*key).clone())).enumerate()
        {
            let (door, key) = (self.clone(), key.clone());
            importing.spawn(async move {
                let _held = door.flight.clone().acquire_owned().await.unwrap();
                let imported = door.import(&key, number == 0).await;
                (key, imported)
            });
        }
        let mut keys = BTreeMap::new();
        while let Some(done) = importing.join_next().await {
            let (key, imported) = done.unwrap();
            keys.insert(key, imported);
        }
        keys
    }

    async fn import(&self, key: &Key, by_job: bool) -> Imported {
        let name = new_name();
        match key {
            Key::Public(..) => self.import_by_job(&name, key).await,
            _ if by_job => self.import_by_job(&name, key).await,
            Key::Private(algorithm, bytes) | Key::Secret(algorithm, bytes) => {
                let request = v1::UnwrapKeyRequest {
                    name: self.wrapping.0.clone(),
                    mechanism: v1::Mechanism::AesKwp.into(),
                    wrapped_key: self.wrap(bytes),
                    key: Some(described(&name, *algorithm, bytes.len())),
                    ..Default::default()
                };
                let answer = self.client.call(self.client.crypto().unwrap_key(request)).await;
                refusal(answer).map(|made| made.version.unwrap())
            }
        }
    }

    /// The way of KeyManagementService: a version that waits, its material, and its activation.
    pub(crate) async fn import_by_job(&self, name: &str, key: &Key) -> Imported {
        let client = &self.client;
        let (algorithm, bytes, public) = match key {
            Key::Public(algorithm, bytes) => (*algorithm, bytes, true),
            Key::Private(algorithm, bytes) | Key::Secret(algorithm, bytes) => {
                (*algorithm, bytes, false)
            }
        };
        let mut described = described(name, algorithm, bytes.len());
        if public {
            only_public(&mut described, algorithm);
        }
        let request = v1::CreateKeyRequest {
            key: Some(described),
            pending_import: true,
            ..Default::default()
        };
        let made = refusal(client.call(client.keys().create_key(request)).await)?;
        use v1::import_key_version_request::Material;
        let material = if public {
            Material::PublicKey(bytes.clone())
        } else {
            let ciphertext = seal(&self.job, if bytes.is_empty() { &[0] } else { bytes });
            Material::Sealed(v1::SealedMaterial { import_job: self.job.name.clone(), ciphertext })
        };
        let request = v1::ImportKeyVersionRequest {
            name: made.version.unwrap().name,
            material: Some(material),
            ..Default::default()
        };
        let imported = refusal(client.call(client.keys().import_key_version(request)).await)?;
        let version = imported.version.unwrap();
        refusal(step(client, "Activate", &version.name).await)
    }

    /// What no batch takes.
    async fn single(&self, version: &v1::KeyVersion, deed: Deed) -> Single {
        let (client, name) = (&self.client, version.name.clone());
        let new = |length| Some(described(&new_name(), Algorithm::GenericSecret, length));
        let (made, secret) = match deed {
            Deed::Import { public } => {
                let same = version.public_key == public;
                return Single::Known(if same { Outcome::Done } else { Outcome::Other });
            }
            Deed::Encapsulate => {
                let request =
                    v1::EncapsulateKeyRequest { name, key: new(32), ..Default::default() };
                let answer = client.call(client.crypto().encapsulate_key(request)).await;
                return Single::Known(match refusal(answer) {
                    Ok(_) => Outcome::Done,
                    Err(reason) => Outcome::Refused(reason),
                });
            }
            Deed::Agree { peer, secret } => {
                let request = v1::AgreeKeyRequest {
                    name,
                    peer_public_key: peer,
                    // Of a refused peer there is no secret to have the length of.
                    key: new(secret.len().max(32)),
                    ..Default::default()
                };
                let answer = client.call(client.crypto().agree_key(request)).await;
                (refusal(answer).map(|made| made.version.unwrap().name), secret)
            }
            Deed::Decapsulate { ciphertext, secret } => {
                let request = v1::DecapsulateKeyRequest {
                    name,
                    ciphertext,
                    key: new(32),
                    request_id: Vec::new(),
                };
                let answer = client.call(client.crypto().decapsulate_key(request)).await;
                (refusal(answer).map(|made| made.version.unwrap().name), secret)
            }
            Deed::Derive { mechanism, salt, info, output } => {
                let request = v1::DeriveKeyRequest {
                    name,
                    mechanism: wire_mechanism(mechanism).into(),
                    salt,
                    info,
                    key: new(output.len()),
                    ..Default::default()
                };
                let answer = client.call(client.crypto().derive_key(request)).await;
                (refusal(answer).map(|made| made.version.unwrap().name), output)
            }
            Deed::Unwrap { mechanism, wrapped, plain } => {
                let request = v1::UnwrapKeyRequest {
                    name,
                    mechanism: wire_mechanism(mechanism).into(),
                    wrapped_key: wrapped,
                    key: new(plain.len()),
                    ..Default::default()
                };
                let answer = client.call(client.crypto().unwrap_key(request)).await;
                (refusal(answer).map(|made| made.version.unwrap().name), plain)
            }
            other => panic!("{other:?} goes in batches"),
        };
        match made {
            Ok(name) => Single::Made { name, tag: tag(&secret) },
            Err(reason) => Single::Known(Outcome::Refused(reason)),
        }
    }

    /// Sends the items in batches and reads what came of each.
    async fn batches(
        self: &Arc<Self>,
        items: Vec<(usize, v1::BatchItem)>,
        mut read: impl FnMut(usize, Answer) -> Outcome,
    ) -> Vec<(usize, Outcome)> {
        let mut sent = JoinSet::new();
        for chunk in items.chunks(BATCH) {
            let (numbers, items): (Vec<_>, Vec<_>) = chunk.iter().cloned().unzip();
            let door = self.clone();
            sent.spawn(async move {
                let _held = door.flight.clone().acquire_owned().await.unwrap();
                let request = v1::BatchRequest { items };
                let answer = door.client.call(door.client.crypto().batch(request)).await;
                let results = answer.unwrap().results;
                assert_eq!(results.len(), numbers.len());
                numbers.into_iter().zip(results).collect::<Vec<_>>()
            });
        }
        let mut outcomes = Vec::new();
        while let Some(done) = sent.join_next().await {
            for (at, result) in done.unwrap() {
                let outcome = match result.response.unwrap() {
                    Answer::Error(error) => {
                        Outcome::Refused(format!("{}: {}", error.reason, error.message))
                    }
                    answer => read(at, answer),
                };
                outcomes.push((at, outcome));
            }
        }
        outcomes
    }
}

/// What came of a request that is in no batch.
enum Single {
    Known(Outcome),
    /// A key, and the tag that it must make.
    Made {
        name: String,
        tag: Vec<u8>,
    },
}

use v1::batch_result::Response as Answer;

/// What keys that cannot be read are compared by.
pub(crate) const COMPARED: &[u8] = b"compare";

/// The tag that a secret makes; what is no secret makes one that nothing equals.
pub(crate) fn tag(secret: &[u8]) -> Vec<u8> {
    let usable = is_secret(secret.len()).then(|| material(secret));
    let tag = usable.map(|key| PureRust.mac(Mechanism::HmacSha256, &key, COMPARED).unwrap());
    tag.unwrap_or_default()
}

fn item(name: &str, deed: &Deed) -> Option<v1::BatchItem> {
    use v1::batch_item::Request;
    let name = name.to_owned();
    let request = match deed.clone() {
        Deed::Verify { mechanism, message, context, signature } => {
            Request::Verify(v1::VerifyRequest {
                name,
                data: Some(v1::verify_request::Data::Message(message)),
                signature,
                mechanism: wire_mechanism(mechanism).into(),
                context,
                ..Default::default()
            })
        }
        Deed::Sign { mechanism, message, .. } => Request::Sign(v1::SignRequest {
            name,
            data: Some(v1::sign_request::Data::Message(message)),
            mechanism: wire_mechanism(mechanism).into(),
            ..Default::default()
        }),
        Deed::Mac { mechanism, data, tag } => Request::MacVerify(v1::MacVerifyRequest {
            name,
            data,
            mac: tag,
            mechanism: wire_mechanism(mechanism).into(),
        }),
        Deed::Open { mechanism, iv, aad, ciphertext, .. } => Request::Decrypt(v1::DecryptRequest {
            name,
            initialization_vector: iv,
            ciphertext,
            additional_authenticated_data: aad,
            mechanism: wire_mechanism(mechanism).into(),
            ..Default::default()
        }),
        _ => return None,
    };
    Some(v1::BatchItem { request: Some(request) })
}

fn told(deed: &Deed, answer: Answer) -> Outcome {
    let valid = |valid| if valid { Outcome::Done } else { Outcome::Invalid };
    let same = |same| if same { Outcome::Done } else { Outcome::Other };
    match (deed, answer) {
        (Deed::Verify { .. }, Answer::Verify(answer)) => valid(answer.valid),
        (Deed::Mac { .. }, Answer::MacVerify(answer)) => valid(answer.valid),
        (Deed::Sign { signature, .. }, Answer::Sign(answer)) => {
            same(answer.signature == *signature)
        }
        (Deed::Open { plaintext, .. }, Answer::Decrypt(answer)) => {
            same(plaintext.as_ref().is_none_or(|plaintext| *plaintext == answer.plaintext))
        }
        (deed, answer) => panic!("{deed:?}: {answer:?}"),
    }
}

/// The answer, or the name of the refusal and what it says.
fn refusal<T>(answer: Result<T, ClientError>) -> Result<T, String> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(ClientError::Refused { reason, message, .. }) => Err(format!("{reason}: {message}")),
        Err(other) => panic!("{other:?}"),
    }
}

/// A key with every mechanism of its algorithm.
pub(crate) fn described(name: &str, algorithm: Algorithm, length: usize) -> v1::Key {
    let length = if algorithm == Algorithm::GenericSecret { length } else { 0 };
    v1::Key {
        name: format!("{RING}/{name}"),
        algorithm: wire_algorithm(algorithm).into(),
        mechanisms: algorithm.mechanisms().iter().map(|m| wire_mechanism(*m).into()).collect(),
        // 0 would mean 32 bytes.
        length_bytes: u32::try_from(length)
            .unwrap()
            .max(u32::from(algorithm == Algorithm::GenericSecret)),
        exportable: true,
        pkcs11_label: name.to_owned(),
        pkcs11_id: name.as_bytes().to_vec(),
        ..Default::default()
    }
}

/// What a public key alone can be for.
fn only_public(key: &mut v1::Key, algorithm: Algorithm) {
    let (ours, wire) = match algorithm {
        Algorithm::MlKem768 | Algorithm::MlKem1024 => (Usage::Encapsulate, v1::Usage::Encapsulate),
        _ => (Usage::Verify, v1::Usage::Verify),
    };
    let offering = algorithm.mechanisms().iter().filter(|mechanism| mechanism.offers(ours));
    key.mechanisms = offering.map(|mechanism| wire_mechanism(*mechanism).into()).collect();
    key.usages = vec![wire.into()];
    key.exportable = false;
}

pub(crate) fn new_name() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("k{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn wire_mechanism(mechanism: Mechanism) -> v1::Mechanism {
    v1::Mechanism::from_str_name(&format!("MECHANISM_{mechanism}")).unwrap()
}

fn wire_algorithm(algorithm: Algorithm) -> v1::Algorithm {
    v1::Algorithm::from_str_name(&format!("ALGORITHM_{algorithm}")).unwrap()
}

fn wrap(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    PureRust.wrap(Mechanism::AesKwp, &material(key), &material(bytes)).unwrap()
}

/// CKM_RSA_AES_KEY_WRAP to the key of an import job, by the library that the daemon does not use for it.
fn seal(job: &v1::ImportJob, bytes: &[u8]) -> Vec<u8> {
    let transport = [0x42; 32];
    let sealed = PureRust.public_encrypt(
        Algorithm::Rsa4096,
        Mechanism::RsaOaepSha256,
        &job.public_key,
        CipherParameters::default(),
        &transport,
    );
    [sealed.unwrap(), wrap(&transport, bytes)].concat()
}
