//! Known answers of ML-DSA, ML-KEM, SLH-DSA and X-Wing (`known_answer/README.md`).

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use sha2::{Digest, Sha256};

use super::Known;
use crate::CryptoError;
use crate::mechanism::key_form;
use crate::provider::{Provider, SignInput};

/// Makes the public key of a published seed, accepts the signature of that key, refuses it over another
/// message, and accepts what it signed itself, with and without a context.
pub(super) fn ml_dsa(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    for answer in &SIGNED {
        let algorithm = answer.algorithm;
        let given = key_form::pkcs8_seed(algorithm, &known.bytes(answer.seed))?;
        let key = provider.import(algorithm, &given)?;
        let raw = key_form::raw_public_key(algorithm, &key.public_key)?;
        let signer = provider.private_key(algorithm, &key.material)?;
        let (message, signature) = (known.bytes(answer.message), known.answer(answer.signature));
        let input = SignInput::Message(&message);
        let plain = signer.sign(mechanism, input, b"")?;
        let bound = signer.sign(mechanism, input, b"context")?;
        let verify = |input, context: &[u8], signature: &[u8]| {
            provider.verify(algorithm, mechanism, &key.public_key, input, context, signature)
        };
        let good = Sha256::digest(raw).as_slice() == known.bytes(answer.public_key_sha256)
            && verify(input, b"", &signature)?
            && !verify(SignInput::Message(b"other"), b"", &signature)?
            && verify(input, b"", &plain)?
            && verify(input, b"context", &bound)?
            && !verify(input, b"", &bound)?;
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the public key of a published seed, recovers the published secret, gives another one for a
/// changed ciphertext, and recovers what it encapsulated itself.
pub(super) fn ml_kem(
    provider: &dyn Provider,
    _: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    for answer in &ENCAPSULATED {
        let algorithm = answer.algorithm;
        let given = key_form::pkcs8_seed(algorithm, &known.bytes(answer.seed))?;
        let key = provider.import(algorithm, &given)?;
        let raw = key_form::raw_public_key(algorithm, &key.public_key)?;
        let opened = provider.private_key(algorithm, &key.material)?;
        let (mut ciphertext, secret) =
            (known.bytes(answer.ciphertext), known.answer(answer.secret));
        let recovered = opened.decapsulate(&ciphertext)?;
        ciphertext[0] ^= 1;
        let rejected = opened.decapsulate(&ciphertext)?;
        let (own, sent) = provider.encapsulate(algorithm, &key.public_key)?;
        let good = Sha256::digest(raw).as_slice() == known.bytes(answer.public_key_sha256)
            && recovered.expose() == secret
            && rejected.expose() != secret
            && opened.decapsulate(&own)?.expose() == sent.expose();
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the public key of a published seed, recovers the published secret, and recovers what it
/// encapsulated itself.
pub(super) fn x_wing(
    provider: &dyn Provider,
    _: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let algorithm = Algorithm::XWing;
    let key = provider.import(algorithm, &known.key(X_WING_SEED)?)?;
    let opened = provider.private_key(algorithm, &key.material)?;
    let secret = opened.decapsulate(&known.bytes(X_WING_CIPHERTEXT))?;
    let (own, sent) = provider.encapsulate(algorithm, &key.public_key)?;
    let public_key = Sha256::digest(&key.public_key);
    Ok(public_key.as_slice() == known.bytes(X_WING_PUBLIC_KEY_SHA256)
        && secret.expose() == known.answer(X_WING_SECRET)
        && opened.decapsulate(&own)?.expose() == sent.expose())
}

/// Accepts the signature of another library, refuses it over another message or with a context, and
/// accepts what it signed itself with that library's key.
pub(super) fn slh_dsa(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let algorithm = Algorithm::SlhDsaSha2_128s;
    let private_key = known.bytes(SLH_DSA_PRIVATE_KEY);
    let Some(raw) = private_key.get(32..) else { return Ok(false) };
    let given = key_form::pkcs8(algorithm, &[&private_key])?;
    let public_key = key_form::public_key_from_raw(algorithm, raw)?;
    let input = SignInput::Message(b"sample");
    let own = provider.private_key(algorithm, &given)?.sign(mechanism, input, b"context")?;
    let signature = known.answer(SLH_DSA_SIGNATURE);
    let verify = |input, context: &[u8], signature: &[u8]| {
        provider.verify(algorithm, mechanism, &public_key, input, context, signature)
    };
    Ok(verify(input, b"", &signature)?
        && !verify(SignInput::Message(b"other"), b"", &signature)?
        && !verify(input, b"context", &signature)?
        && verify(input, b"context", &own)?)
}

struct Signed {
    algorithm: Algorithm,
    seed: &'static str,
    public_key_sha256: &'static str,
    message: &'static str,
    signature: &'static str,
}

struct Encapsulated {
    algorithm: Algorithm,
    seed: &'static str,
    public_key_sha256: &'static str,
    ciphertext: &'static str,
    secret: &'static str,
}

const SIGNED: [Signed; 3] = [
    // The seed and public key of RFC 9881 §C.1.1; signed by another library.
    Signed {
        algorithm: Algorithm::MlDsa44,
        seed: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        public_key_sha256: "9f107644c1084526af3bc8098680b05499a2325a644e388fb4f970e058d19d46",
        message: "73616d706c65",
        signature: include_str!("../../known_answer/ml_dsa_44.signature.hex"),
    },
    // Project Wycheproof, mldsa_65_sign_seed, test 1.
    Signed {
        algorithm: Algorithm::MlDsa65,
        seed: "2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a",
        public_key_sha256: "b7acce2ddb11f8cc1aa46e2bafac6eacfa2b732ef192bd636ad8d3a56d649c66",
        message: "48656c6c6f20776f726c64",
        signature: include_str!("../../known_answer/ml_dsa_65.signature.hex"),
    },
    // Project Wycheproof, mldsa_87_sign_seed, test 1.
    Signed {
        algorithm: Algorithm::MlDsa87,
        seed: "2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a",
        public_key_sha256: "d43128fa8a8c785c1d44c9e7db538dbf9dd88fe6c8ad911a344bcec1017c6d54",
        message: "48656c6c6f20776f726c64",
        signature: include_str!("../../known_answer/ml_dsa_87.signature.hex"),
    },
];

/// Seed and public key of NIST ACVP, ML-KEM-keyGen-FIPS203, tests 26 and 51; encapsulated by another
/// library.
const ENCAPSULATED: [Encapsulated; 2] = [
    Encapsulated {
        algorithm: Algorithm::MlKem768,
        seed: "e582b7d75e6c80b05ae392a1fc9f7153b12390fd99930368cc67a768baebc8a01cdacb87
            40c0b87c4a379575f187b367cbfa3b300bf591b109f79816e9cbe8f0",
        public_key_sha256: "4158f6afb5e516c99f1da07da8c651348422b17c1f4e9a08ad73fb1f91249b3e",
        ciphertext: include_str!("../../known_answer/ml_kem_768.ciphertext.hex"),
        secret: "82c9c37c49c9e540d64f907ea0a3fb723a28008cff007dfd0769492f5a47c4dd",
    },
    Encapsulated {
        algorithm: Algorithm::MlKem1024,
        seed: "f3a706faf090c03db506863ab0b20bd8a1627956318e88c67eb875e8e726600935d2bc43
            dd1cc879f765bf2a0c5e297889dde910e57e2bb0eae417b90ab7a275",
        public_key_sha256: "b78619e4fceeeb86dee3fedb945eca6da61dae312771ef8fa871951d391bd7b6",
        ciphertext: include_str!("../../known_answer/ml_kem_1024.ciphertext.hex"),
        secret: "64ee20b237ac23b0da94d7eb5942e00de8fc6993aece93cf6160507d19e04ae8",
    },
];

/// draft-connolly-cfrg-xwing-kem, appendix C, first vector.
const X_WING_SEED: &str = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";
const X_WING_PUBLIC_KEY_SHA256: &str =
    "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb";
const X_WING_CIPHERTEXT: &str = include_str!("../../known_answer/x_wing.ciphertext.hex");
const X_WING_SECRET: &str = "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384";

/// `SK.seed || SK.prf || PK.seed || PK.root`.
const SLH_DSA_PRIVATE_KEY: &str =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
    2425262728292a2b2c2d2e2f990ce6298792b128846a8e4a3a68954c";
const SLH_DSA_SIGNATURE: &str = include_str!("../../known_answer/slh_dsa_sha2_128s.signature.hex");
