//! The door that PKCS#11 clients use: the built `libkms_pkcs11.so`, loaded by the `cryptoki` crate, with a
//! real daemon behind it.
//!
//! The module reads where the daemon is from its environment, which a test must not change under other
//! tests, so the work is done in a child of this program.
//!
//! Secret and private keys come in by `C_UnwrapKey`. The module has no `C_CreateObject`, by design (no
//! plaintext key in any message), so public keys are imported by gRPC and found here.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::hkdf::{HkdfParams, HkdfSalt};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism as Pkcs11Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, KeyType, MlDsaParameterSetType, MlKemParameterSetType, ObjectClass,
    ObjectHandle,
};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use kms_client::v1;
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::{Hash, Mechanism};
use kms_crypto::mechanism::{ecdsa, key_form};
use kms_crypto::provider::Provider as _;
use kms_crypto::provider::purerust::PureRust;
use kms_tests::{Daemon, daemon};

use crate::catalog::{Case, Deed, Key, files, sample, there};
use crate::grpc::{COMPARED, Door, RING, new_name, tag};
use crate::tally::{Outcome, Table};

/// What may stand behind a vector that wants to be refused.
const RIGHTLY: &[&str] = &[
    "ArgumentsBad",
    "CurveNotSupported",
    "EncryptedDataInvalid",
    "EncryptedDataLenRange",
    "KeySizeRange",
    "MechanismParamInvalid",
    "SignatureLenRange",
    "TemplateInconsistent",
    "WrappedKeyInvalid",
    "WrappedKeyLenRange",
    // A public key that was refused when it was imported by gRPC.
    "CIPHERTEXT_REFUSED",
    "INVALID_ARGUMENT",
];
const PIN: &str = "published vectors";
const SOCKET: &str = "KMS_TEST_SOCKET";
const WRAPPING: &str = "KMS_TEST_WRAPPING";
/// Threads, each with a session and so with a stream of its own.
const THREADS: usize = 3;

/// Starts this program again to run one of its ignored tests behind a daemon of its own.
pub(crate) async fn run_child(test: &str) {
    let daemon = Daemon::start();
    let door = Door::open(&daemon).await;
    let officer = daemon.officer_client().await;
    let request = v1::SetTokenPinRequest {
        ring: RING.to_owned(),
        role: v1::PinRole::User.into(),
        pin: PIN.to_owned(),
    };
    officer.call(officer.token().set_token_pin(request)).await.unwrap();
    let socket = daemon.state().join("kmsd.sock");
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("KMS_ADDR", format!("unix:{}", socket.display()))
        .env("KMS_PKCS11_LOG", "1")
        .env(SOCKET, &socket)
        .env(WRAPPING, door.wrapping());
    let ended = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    print!("{said}");
    if !ended.status.success() {
        panic!("{}\nkmsd: {}", String::from_utf8_lossy(&ended.stderr), daemon.output());
    }
    assert!(said.contains("1 passed"), "the child has no test {test}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_vectors_through_the_module() {
    if there() {
        run_child("module::child_of_published_vectors").await;
    }
}

#[test]
#[ignore = "run by published_vectors_through_the_module, which starts a daemon for it"]
fn child_of_published_vectors() {
    let token = Token::open();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(daemon::connect(&daemon::unix(&token.socket)));
    let door = Door::attach(client, env::var(WRAPPING).unwrap());
    let table = Table::new("PKCS#11", RIGHTLY);
    let (mut waiting, mut found) = (Vec::new(), 0);
    for (name, read) in files() {
        if let Some(cases) = read(&name) {
            found += 1;
            let (cases, left) = sample(cases);
            waiting.push((name, cases, left));
        }
    }
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let worker = token.worker();
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some((name, cases, left)) = next else { break };
                    let outcomes = runtime_run(&runtime, &door, &worker, &cases);
                    table.judge(&name, &cases, &outcomes, left);
                }
            });
        }
    });
    table.finish(found);
}

fn runtime_run(
    runtime: &tokio::runtime::Runtime,
    door: &Door,
    worker: &Worker,
    cases: &[Case],
) -> Vec<Outcome> {
    let mut keys: BTreeMap<&Key, Result<Handles, String>> = BTreeMap::new();
    let outcomes = cases.iter().map(|case| {
        if matches!(case.deed, Deed::Nothing) {
            return Outcome::Unasked("no mechanism has a place for it");
        }
        let handles = keys.entry(&case.key).or_insert_with(|| match &case.key {
            Key::Public(..) => {
                let id = new_name();
                let imported = runtime.block_on(door.import_by_job(&id, &case.key));
                imported.map(|_| worker.find(&id))
            }
            Key::Private(algorithm, bytes) => {
                worker.take_in(*algorithm, ObjectClass::PRIVATE_KEY, bytes.len(), &door.wrap(bytes))
            }
            Key::Secret(algorithm, bytes) => {
                worker.take_in(*algorithm, ObjectClass::SECRET_KEY, bytes.len(), &door.wrap(bytes))
            }
        });
        match handles {
            Ok(handles) => worker.deed(*handles, &case.key, &case.deed),
            Err(reason) => Outcome::Refused(reason.clone()),
        }
    });
    outcomes.collect()
}

/// The module, loaded and logged in.
pub(crate) struct Token {
    module: Pkcs11,
    slot: cryptoki::slot::Slot,
    socket: PathBuf,
    /// Holds the login, which ends with the last session.
    _session: Mutex<Session>,
}

impl Token {
    pub(crate) fn open() -> Self {
        let socket =
            env::var_os(SOCKET).expect("the test that starts this says where the daemon is");
        let module = Pkcs11::new(library()).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let mut slots = module.get_slots_with_token().unwrap().into_iter();
        let slot = slots.find(|slot| module.get_token_info(*slot).unwrap().label() == RING);
        let slot = slot.expect("the ring is a token");
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
        Self { module, slot, socket: socket.into(), _session: Mutex::new(session) }
    }

    pub(crate) fn worker(&self) -> Worker {
        let session = self.module.open_rw_session(self.slot).unwrap();
        let wrapping = session.find_objects(&[Attribute::Id(b"wrapping".to_vec())]).unwrap()[0];
        Worker { session, wrapping }
    }
}

/// The built module, beside the folder of this program.
fn library() -> PathBuf {
    let program = env::current_exe().unwrap();
    let library = program.ancestors().nth(2).unwrap().join("libkms_pkcs11.so");
    assert!(library.exists(), "{} is not there; build the workspace first", library.display());
    library
}

/// One thread's session, and the key that unwraps what comes in.
pub(crate) struct Worker {
    pub(crate) session: Session,
    pub(crate) wrapping: ObjectHandle,
}

/// The objects of a key.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    /// Private or secret.
    pub(crate) own: Option<ObjectHandle>,
    pub(crate) public: Option<ObjectHandle>,
}

/// The result, or by which name it was refused.
pub(crate) fn refusal<T>(answer: Result<T, Error>) -> Result<T, String> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(Error::Pkcs11(by, _)) => Err(format!("{by:?}")),
        Err(other) => panic!("{other:?}"),
    }
}

/// What there is to know of an object besides.
pub(crate) fn describing(algorithm: Algorithm) -> Vec<Attribute> {
    let curve = |raw_bytes: usize| {
        let spki = key_form::public_key_from_raw(algorithm, &vec![4; raw_bytes]).unwrap();
        // The identifier's second part: behind the outer sequence, the inner one and id-ecPublicKey.
        let inner = if spki[1] < 0x80 { 2 } else { 2 + usize::from(spki[1] & 0x7f) };
        let at = inner + 2 + 9;
        Attribute::EcParams(spki[at..at + 2 + usize::from(spki[at + 1])].to_vec())
    };
    match algorithm {
        Algorithm::Aes128 => vec![KeyType::AES.into_attribute(), Attribute::ValueLen(16.into())],
        Algorithm::Aes192 => vec![KeyType::AES.into_attribute(), Attribute::ValueLen(24.into())],
        Algorithm::Aes256 => vec![KeyType::AES.into_attribute(), Attribute::ValueLen(32.into())],
        Algorithm::EcP256 | Algorithm::EcSecp256k1 => {
            vec![KeyType::EC.into_attribute(), curve(65)]
        }
        Algorithm::EcP384 => vec![KeyType::EC.into_attribute(), curve(97)],
        Algorithm::EcP521 => vec![KeyType::EC.into_attribute(), curve(133)],
        Algorithm::Ed25519 => vec![KeyType::EC_EDWARDS.into_attribute()],
        Algorithm::X25519 => vec![KeyType::EC_MONTGOMERY.into_attribute()],
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            vec![KeyType::RSA.into_attribute()]
        }
        Algorithm::MlDsa44 => ml_dsa(MlDsaParameterSetType::ML_DSA_44),
        Algorithm::MlDsa65 => ml_dsa(MlDsaParameterSetType::ML_DSA_65),
        Algorithm::MlDsa87 => ml_dsa(MlDsaParameterSetType::ML_DSA_87),
        Algorithm::MlKem768 => ml_kem(MlKemParameterSetType::ML_KEM_768),
        Algorithm::MlKem1024 => ml_kem(MlKemParameterSetType::ML_KEM_1024),
        _ => vec![KeyType::GENERIC_SECRET.into_attribute()],
    }
}

fn ml_dsa(set: MlDsaParameterSetType) -> Vec<Attribute> {
    vec![KeyType::ML_DSA.into_attribute(), Attribute::ParameterSet(set.into())]
}

fn ml_kem(set: MlKemParameterSetType) -> Vec<Attribute> {
    vec![KeyType::ML_KEM.into_attribute(), Attribute::ParameterSet(set.into())]
}

trait IntoAttribute {
    fn into_attribute(self) -> Attribute;
}

impl IntoAttribute for KeyType {
    fn into_attribute(self) -> Attribute {
        Attribute::KeyType(self)
    }
}

impl Worker {
    /// The objects with that CKA_ID.
    pub(crate) fn find(&self, id: &str) -> Handles {
        let of = |class| {
            let wanted = [Attribute::Class(class), Attribute::Id(id.as_bytes().to_vec())];
            self.session.find_objects(&wanted).unwrap().first().copied()
        };
        let own = of(ObjectClass::PRIVATE_KEY).or_else(|| of(ObjectClass::SECRET_KEY));
        Handles { own, public: of(ObjectClass::PUBLIC_KEY) }
    }

    /// C_UnwrapKey of key bytes, wrapped by the key that both sides know.
    fn take_in(
        &self,
        algorithm: Algorithm,
        class: ObjectClass,
        length: usize,
        wrapped: &[u8],
    ) -> Result<Handles, String> {
        let id = new_name();
        let mut template = describing(algorithm);
        template.push(Attribute::Class(class));
        template.push(Attribute::Id(id.as_bytes().to_vec()));
        if algorithm == Algorithm::GenericSecret {
            template.push(Attribute::ValueLen((length as u64).into()));
        }
        let wrapping = &Pkcs11Mechanism::AesKeyWrapPad;
        let made = self.session.unwrap_key(wrapping, self.wrapping, wrapped, &template);
        let own = refusal(made)?;
        let public = if class == ObjectClass::PRIVATE_KEY { self.find(&id).public } else { None };
        Ok(Handles { own: Some(own), public })
    }

    fn deed(&self, handles: Handles, key: &Key, deed: &Deed) -> Outcome {
        let Handles { own, public } = handles;
        match deed {
            Deed::Verify { mechanism, message, context, signature } => {
                let (Key::Private(algorithm, _) | Key::Public(algorithm, _)) = key else {
                    panic!("a signature by a secret")
                };
                self.verify(*algorithm, public.unwrap(), *mechanism, message, context, signature)
            }
            Deed::Sign { mechanism, message, signature } => {
                let Some(mechanism) = signing(*mechanism) else { return UNNAMED };
                match refusal(self.session.sign(&mechanism, own.unwrap(), message)) {
                    Ok(made) if made == *signature => Outcome::Done,
                    Ok(_) => Outcome::Other,
                    Err(by) => Outcome::Refused(by),
                }
            }
            Deed::Mac { mechanism, data, tag } => {
                let Some(mechanism) = mac(*mechanism) else { return UNNAMED };
                checked(self.session.verify(&mechanism, own.unwrap(), data, tag))
            }
            Deed::Open { mechanism, iv, aad, ciphertext, plaintext } => {
                let mut iv = iv.clone();
                let mechanism = match mechanism {
                    Mechanism::AesGcm => {
                        Pkcs11Mechanism::AesGcm(GcmParams::new(&mut iv, aad, 128.into()).unwrap())
                    }
                    Mechanism::RsaPkcs1 => Pkcs11Mechanism::RsaPkcs,
                    other => oaep(*other, aad),
                };
                let opened = self.session.decrypt(&mechanism, own.unwrap(), ciphertext);
                match refusal(opened) {
                    Ok(found) if plaintext.as_ref().is_none_or(|text| *text == found) => {
                        Outcome::Done
                    }
                    Ok(_) => Outcome::Other,
                    Err(by) => Outcome::Refused(by),
                }
            }
            Deed::Unwrap { mechanism, wrapped, plain } => {
                let mechanism = match mechanism {
                    Mechanism::AesKw => Pkcs11Mechanism::AesKeyWrap,
                    _ => Pkcs11Mechanism::AesKeyWrapPad,
                };
                let template = secret_template(plain.len());
                let made = self.session.unwrap_key(&mechanism, own.unwrap(), wrapped, &template);
                self.compared(made, plain)
            }
            Deed::Derive { mechanism, salt, info, output } => {
                let hash = mechanism_of(mechanism.hash().unwrap());
                let salt = if salt.is_empty() { HkdfSalt::Null } else { HkdfSalt::Data(salt) };
                let parameters = HkdfParams::new(hash, Some(salt), Some(info));
                let mechanism = Pkcs11Mechanism::HkdfDerive(parameters);
                let template = secret_template(output.len());
                let made = self.session.derive_key(&mechanism, own.unwrap(), &template);
                self.compared(made, output)
            }
            Deed::Agree { peer, secret } => {
                let Key::Private(algorithm, _) = key else { panic!("{key:?} agrees to nothing") };
                // A point is all that there is room for; what holds none is sent as it stands.
                let point = key_form::raw_public_key(*algorithm, peer).unwrap_or(peer);
                let parameters = Ecdh1DeriveParams::new(EcKdf::null(), point);
                let mechanism = Pkcs11Mechanism::Ecdh1Derive(parameters);
                let template = secret_template(secret.len().max(32));
                let made = self.session.derive_key(&mechanism, own.unwrap(), &template);
                self.compared(made, secret)
            }
            Deed::Decapsulate { ciphertext, secret } => {
                let (mechanism, template) = (Pkcs11Mechanism::MlKem, secret_template(32));
                let own = own.unwrap();
                let made = self.session.decapsulate_key(&mechanism, own, &template, ciphertext);
                self.compared(made, secret)
            }
            Deed::Encapsulate => {
                let (mechanism, template) = (Pkcs11Mechanism::MlKem, secret_template(32));
                let made = self.session.encapsulate_key(&mechanism, public.unwrap(), &template);
                match refusal(made) {
                    Ok(_) => Outcome::Done,
                    Err(by) => Outcome::Refused(by),
                }
            }
            Deed::Import { public: expected } => {
                let wanted = [AttributeType::PublicKeyInfo];
                let found = self.session.get_attributes(public.unwrap(), &wanted).unwrap();
                match &found[..] {
                    [Attribute::PublicKeyInfo(found)] if found == expected => Outcome::Done,
                    other => panic!("{other:?}"),
                }
            }
            Deed::Nothing => panic!("nothing is asked"),
        }
    }

    /// Whether the secret that was made is `expected`: both make the same tag.
    pub(crate) fn compared(&self, made: Result<ObjectHandle, Error>, expected: &[u8]) -> Outcome {
        let made = match refusal(made) {
            Ok(made) => made,
            Err(by) => return Outcome::Refused(by),
        };
        let found = self.session.sign(&Pkcs11Mechanism::Sha256Hmac, made, COMPARED).unwrap();
        if found == tag(expected) { Outcome::Done } else { Outcome::Other }
    }

    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        key: ObjectHandle,
        mechanism: Mechanism,
        message: &[u8],
        context: &[u8],
        signature: &[u8],
    ) -> Outcome {
        let checked = |mechanism: &Pkcs11Mechanism<'_>, message: &[u8], signature: &[u8]| {
            checked(self.session.verify(mechanism, key, message, signature))
        };
        match mechanism {
            Mechanism::MlDsa => {
                // No context at all is the empty one.
                let context = Some(context).filter(|context| !context.is_empty());
                let context = SignAdditionalContext::new(HedgeType::Preferred, context);
                checked(&Pkcs11Mechanism::MlDsa(context), message, signature)
            }
            Mechanism::EdDsa => {
                let plain = EddsaParams::new(EddsaSignatureScheme::Pure);
                checked(&Pkcs11Mechanism::Eddsa(plain), message, signature)
            }
            _ if mechanism.as_str().starts_with("ECDSA") => {
                // Here a signature is r and s one behind the other; what is none is sent as it stands.
                let raw = ecdsa::raw_from_der(algorithm, signature);
                let raw = raw.unwrap_or_else(|_| signature.to_vec());
                match signing(mechanism) {
                    Some(mechanism) => checked(&mechanism, message, &raw),
                    None => {
                        let digest = PureRust.digest(mechanism.hash().unwrap(), message);
                        checked(&Pkcs11Mechanism::Ecdsa, &digest, &raw)
                    }
                }
            }
            _ => match signing(mechanism) {
                Some(mechanism) => checked(&mechanism, message, signature),
                None => UNNAMED,
            },
        }
    }
}

const UNNAMED: Outcome = Outcome::Unasked("the crate cryptoki 0.12 has no name for it");

fn checked(answer: Result<(), Error>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Error::Pkcs11(RvError::SignatureInvalid, _)) => Outcome::Invalid,
        other => Outcome::Refused(refusal(other).unwrap_err()),
    }
}

pub(crate) fn secret_template(length: usize) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen((length as u64).into()),
    ]
}

fn mechanism_of(hash: Hash) -> MechanismType {
    match hash {
        Hash::Sha256 => MechanismType::SHA256,
        Hash::Sha384 => MechanismType::SHA384,
        _ => MechanismType::SHA512,
    }
}

fn mask_of(hash: Hash) -> PkcsMgfType {
    match hash {
        Hash::Sha256 => PkcsMgfType::MGF1_SHA256,
        Hash::Sha384 => PkcsMgfType::MGF1_SHA384,
        _ => PkcsMgfType::MGF1_SHA512,
    }
}

pub(crate) fn oaep(mechanism: Mechanism, label: &[u8]) -> Pkcs11Mechanism<'_> {
    let hash = mechanism.hash().unwrap();
    let source = match label {
        [] => PkcsOaepSource::empty(),
        label => PkcsOaepSource::data_specified(label),
    };
    let parameters = PkcsOaepParams::new(mechanism_of(hash), mask_of(hash), source);
    Pkcs11Mechanism::RsaPkcsOaep(parameters)
}

pub(crate) fn mac(mechanism: Mechanism) -> Option<Pkcs11Mechanism<'static>> {
    Some(match mechanism {
        Mechanism::AesCmac => Pkcs11Mechanism::AesCMac,
        Mechanism::HmacSha1 => Pkcs11Mechanism::Sha1Hmac,
        Mechanism::HmacSha224 => Pkcs11Mechanism::Sha224Hmac,
        Mechanism::HmacSha256 => Pkcs11Mechanism::Sha256Hmac,
        Mechanism::HmacSha384 => Pkcs11Mechanism::Sha384Hmac,
        Mechanism::HmacSha512 => Pkcs11Mechanism::Sha512Hmac,
        _ => return None,
    })
}

/// Mechanisms that hash the message themselves.
pub(crate) fn signing(mechanism: Mechanism) -> Option<Pkcs11Mechanism<'static>> {
    let pss = || {
        let hash = mechanism.hash().unwrap();
        PkcsPssParams {
            hash_alg: mechanism_of(hash),
            mgf: mask_of(hash),
            s_len: (hash.digest_bytes() as u64).into(),
        }
    };
    Some(match mechanism {
        Mechanism::EcdsaSha256 => Pkcs11Mechanism::EcdsaSha256,
        Mechanism::EcdsaSha384 => Pkcs11Mechanism::EcdsaSha384,
        Mechanism::EcdsaSha512 => Pkcs11Mechanism::EcdsaSha512,
        Mechanism::RsaPkcs1Sha1 => Pkcs11Mechanism::Sha1RsaPkcs,
        Mechanism::RsaPkcs1Sha256 => Pkcs11Mechanism::Sha256RsaPkcs,
        Mechanism::RsaPkcs1Sha384 => Pkcs11Mechanism::Sha384RsaPkcs,
        Mechanism::RsaPkcs1Sha512 => Pkcs11Mechanism::Sha512RsaPkcs,
        Mechanism::RsaPssSha256 => Pkcs11Mechanism::Sha256RsaPkcsPss(pss()),
        Mechanism::RsaPssSha384 => Pkcs11Mechanism::Sha384RsaPkcsPss(pss()),
        Mechanism::RsaPssSha512 => Pkcs11Mechanism::Sha512RsaPkcsPss(pss()),
        _ => return None,
    })
}
