//! One token behind PKCS#11, used the same way whoever made the module.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::Work;
use crate::error::BenchError;
use crate::raw::{DIGEST, PLAINTEXT_BYTES};

/// A token that the application is logged in to, with a key of each kind.
#[derive(Clone)]
pub(super) struct Token {
    module: Pkcs11,
    slot: Slot,
    /// Holds the login, which ends with the last session.
    _session: std::sync::Arc<std::sync::Mutex<Session>>,
}

/// One thread's session and the keys in it.
pub(super) struct Worker {
    session: Session,
    signer: ObjectHandle,
    sealer: ObjectHandle,
    plaintext: Vec<u8>,
}

impl Token {
    /// Loads the module, makes the token if asked, logs in, and makes the keys.
    pub(super) fn open(
        library: &Path,
        label: &str,
        pin: &str,
        initialise: bool,
    ) -> Result<Self, BenchError> {
        let module = Pkcs11::new(library)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let pin = AuthPin::new(pin.to_owned().into());
        if initialise {
            make_token(&module, label, &pin)?;
        }
        let is_named =
            |slot: &Slot| module.get_token_info(*slot).is_ok_and(|token| token.label() == label);
        let slot = module.get_slots_with_token()?.into_iter().find(is_named);
        let slot = slot.ok_or(BenchError::Protocol("the module shows no token of that label"))?;
        let session = module.open_rw_session(slot)?;
        session.login(UserType::User, Some(&pin))?;
        make_key_pair(&session, SIGNER)?;
        let template = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(SEALER.to_vec()),
            Attribute::ValueLen(32.into()),
            Attribute::Encrypt(true),
        ];
        session.generate_key(&Mechanism::AesKeyGen, &template)?;
        let session = std::sync::Arc::new(std::sync::Mutex::new(session));
        Ok(Self { module, slot, _session: session })
    }

    /// Name and version of the library.
    pub(super) fn library(&self) -> Result<String, BenchError> {
        let info = self.module.get_library_info()?;
        Ok(format!("{} {}", info.manufacturer_id().trim(), info.library_version()))
    }

    /// A session for the calling thread, warm.
    pub(super) fn worker(&self) -> Result<Worker, BenchError> {
        let session = self.module.open_rw_session(self.slot)?;
        let signer = find(&session, ObjectClass::PRIVATE_KEY, SIGNER)?;
        let sealer = find(&session, ObjectClass::SECRET_KEY, SEALER)?;
        let worker = Worker { session, signer, sealer, plaintext: vec![0x17; PLAINTEXT_BYTES] };
        worker.operation(Work::Sign)?;
        worker.operation(Work::Encrypt)?;
        Ok(worker)
    }
}

impl Worker {
    /// Does one operation.
    pub(super) fn operation(&self, work: Work) -> Result<(), BenchError> {
        let Self { session, signer, sealer, plaintext } = self;
        match work {
            Work::Create => make_key_pair(session, b"bench-created"),
            Work::Encrypt => {
                // Zeros ask our module for an IV of the daemon's making. SoftHSM2 takes them as
                // the IV, which for a key that is used for nothing does no harm.
                let mut iv = [0; 12];
                let parameter = GcmParams::new(&mut iv, &[], 128.into())?;
                let mechanism = Mechanism::AesGcm(parameter);
                let ciphertext = session.encrypt(&mechanism, *sealer, plaintext)?;
                expect_length(&ciphertext, PLAINTEXT_BYTES + 16)
            }
            Work::Sign => expect_length(&session.sign(&Mechanism::Ecdsa, *signer, &DIGEST)?, 64),
        }
    }
}

fn expect_length(bytes: &[u8], length: usize) -> Result<(), BenchError> {
    if bytes.len() == length {
        Ok(())
    } else {
        Err(BenchError::Protocol("a result of another length"))
    }
}

fn make_token(module: &Pkcs11, label: &str, pin: &AuthPin) -> Result<(), BenchError> {
    let slot = module.get_slots_with_token()?.into_iter().next();
    let slot = slot.ok_or(BenchError::Protocol("the module shows no slot"))?;
    module.init_token(slot, pin, label)?;
    // SoftHSM2 moves a token that was just made to another slot.
    let made = module.get_slots_with_initialized_token()?.into_iter().next();
    let made = made.ok_or(BenchError::Protocol("the module shows no token that it made"))?;
    let session = module.open_rw_session(made)?;
    session.login(UserType::So, Some(pin))?;
    session.init_pin(pin)?;
    session.logout()?;
    Ok(())
}

fn make_key_pair(session: &Session, label: &[u8]) -> Result<(), BenchError> {
    let label = Attribute::Label(label.to_vec());
    let public = [
        Attribute::Token(true),
        label.clone(),
        Attribute::Verify(true),
        Attribute::EcParams(P256_OID.to_vec()),
    ];
    let private = [Attribute::Token(true), Attribute::Private(true), label, Attribute::Sign(true)];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok(())
}

fn find(session: &Session, class: ObjectClass, label: &[u8]) -> Result<ObjectHandle, BenchError> {
    let template = [Attribute::Class(class), Attribute::Label(label.to_vec())];
    let found = session.find_objects(&template)?.into_iter().next();
    found.ok_or(BenchError::Protocol("a key that was made is not found"))
}

const SIGNER: &[u8] = b"bench-signer";
const SEALER: &[u8] = b"bench-sealer";
/// DER of the named curve secp256r1.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
