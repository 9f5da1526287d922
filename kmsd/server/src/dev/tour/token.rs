//! The step through the PKCS#11 module, checked with a library that is not ours.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use secrecy::ExposeSecret as _;

use super::{TourError, say};
use crate::dev::folder::Folder;
use crate::dev::pkcs11_module;

/// Makes a P-256 key through the module, signs with it, and verifies with the `p256` crate.
pub(super) async fn sign(folder: &Folder) -> Result<(), TourError> {
    let module = pkcs11_module();
    if !module.exists() {
        let path = module.display();
        say(5, &format!("skipped PKCS#11: {path} is not built; build the whole workspace"));
        return Ok(());
    }
    let pin = folder.pin("user.pin")?.expose_secret().to_owned();
    // The module drives a runtime of its own on the calling thread, so it gets a plain one.
    let text = std::thread::spawn(move || through_module(&module, pin)).join();
    say(5, &text.map_err(|_| "the PKCS#11 step panicked")??);
    Ok(())
}

fn through_module(module: &Path, pin: String) -> Result<String, TourError> {
    let pkcs11 = Pkcs11::new(module)?;
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let is_dev = |slot: &cryptoki::slot::Slot| {
        pkcs11.get_token_info(*slot).is_ok_and(|token| token.label() == "dev")
    };
    let slots = pkcs11.get_slots_with_token()?;
    let slot = slots.into_iter().find(is_dev).ok_or("the module shows no token named dev")?;
    let session = pkcs11.open_rw_session(slot)?;
    session.login(UserType::User, Some(&AuthPin::new(pin.into())))?;
    let label = Attribute::Label(b"tour-signer".to_vec());
    let public = [Attribute::Token(true), label.clone(), Attribute::EcParams(P256_OID.to_vec())];
    let private = [Attribute::Token(true), label];
    let (public, private) =
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    let message = b"signed through PKCS#11";
    let signature = session.sign(&Mechanism::EcdsaSha256, private, message)?;
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(point)) = attributes.first() else {
        return Err("the public key shows no point".into());
    };
    // CKA_EC_POINT is a DER OCTET STRING: two bytes before the point itself.
    let point = point.get(2..).ok_or("the point is too short")?;
    let key = VerifyingKey::from_sec1_bytes(point)?;
    key.verify(message, &Signature::from_slice(&signature)?)?;
    session.destroy_object(private)?;
    session.close()?;
    Ok("made a P-256 key through PKCS#11, signed with it; the p256 crate verifies the signature"
        .to_owned())
}

/// DER of the named curve secp256r1.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
