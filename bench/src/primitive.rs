//! Single operations of the library, on this thread: bare, and as the daemon calls them, through its
//! provider. What is between the two is checks, encodings and, for secrets, the key schedule.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, Digest, SHA256, SHA384};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, RSA_PKCS1_SHA256, RsaKeyPair,
};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::material::Material;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::{CipherParameters, PrivateKey, Provider as _, SignInput};

use crate::error::BenchError;
use crate::measure::{Extent, Sample, Watch};
use crate::raw::{DIGEST, PLAINTEXT_BYTES};

/// What is done once. The order is that of a round and of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Primitive {
    SignP256,
    SignP384,
    SignRsa2048,
    SignRsa3072,
    Seal,
    Open,
}

impl Primitive {
    pub(crate) const ALL: [Self; 6] = [
        Self::SignP256,
        Self::SignP384,
        Self::SignRsa2048,
        Self::SignRsa3072,
        Self::Seal,
        Self::Open,
    ];
}

/// Keys for all of them, opened once.
pub(crate) struct Primitives {
    raw: [Operation; Primitive::ALL.len()],
    provider: [Operation; Primitive::ALL.len()],
}

type Operation = Box<dyn FnMut() -> Result<(), BenchError>>;

impl Primitives {
    /// Makes the keys.
    ///
    /// # Errors
    /// [`BenchError::Library`].
    pub(crate) fn new() -> Result<Self, BenchError> {
        Ok(Self {
            raw: [
                raw_ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, &SHA256)?,
                raw_ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING, &SHA384)?,
                raw_rsa(KeySize::Rsa2048)?,
                raw_rsa(KeySize::Rsa3072)?,
                raw_seal()?,
                raw_open()?,
            ],
            provider: [
                signature(Algorithm::EcP256, Mechanism::EcdsaSha256, 32)?,
                signature(Algorithm::EcP384, Mechanism::EcdsaSha384, 48)?,
                signature(Algorithm::Rsa2048, Mechanism::RsaPkcs1Sha256, 32)?,
                signature(Algorithm::Rsa3072, Mechanism::RsaPkcs1Sha256, 32)?,
                seal()?,
                open()?,
            ],
        })
    }

    /// The bare library.
    ///
    /// # Errors
    /// [`BenchError::Library`].
    pub(crate) fn raw(&mut self, which: Primitive, extent: Extent) -> Result<Sample, BenchError> {
        timed(&mut self.raw[which as usize], extent)
    }

    /// The same through the provider.
    ///
    /// # Errors
    /// [`BenchError::Library`].
    pub(crate) fn provider(
        &mut self,
        which: Primitive,
        extent: Extent,
    ) -> Result<Sample, BenchError> {
        timed(&mut self.provider[which as usize], extent)
    }
}

fn timed(operation: &mut Operation, extent: Extent) -> Result<Sample, BenchError> {
    let watch = Watch::thread();
    let latencies = extent.time(operation)?;
    watch.stop(latencies)
}

const fn failed<E>(what: &'static str) -> impl FnOnce(E) -> BenchError {
    move |_| BenchError::Library(what)
}

/// What is signed, as a digest of `algorithm`.
fn digest_of(algorithm: &'static digest::Algorithm) -> Result<Digest, BenchError> {
    let bytes = DIGEST_BYTES.get(..algorithm.output_len()).unwrap_or(&DIGEST_BYTES);
    Digest::import_less_safe(bytes, algorithm).map_err(failed("importing a digest"))
}

fn raw_ecdsa(
    signing: &'static EcdsaSigningAlgorithm,
    hash: &'static digest::Algorithm,
) -> Result<Operation, BenchError> {
    let key = EcdsaKeyPair::generate(signing).map_err(failed("key generation"))?;
    let digest = digest_of(hash)?;
    Ok(Box::new(move || {
        let signature = key.sign_digest(&digest).map_err(failed("signing"))?;
        std::hint::black_box(signature);
        Ok(())
    }))
}

fn raw_rsa(size: KeySize) -> Result<Operation, BenchError> {
    let key = RsaKeyPair::generate(size).map_err(failed("key generation"))?;
    let digest = digest_of(&SHA256)?;
    Ok(Box::new(move || {
        let mut signature = vec![0; key.public_modulus_len()];
        let signed = key.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature);
        signed.map_err(failed("signing"))?;
        std::hint::black_box(signature);
        Ok(())
    }))
}

fn raw_key() -> Result<LessSafeKey, BenchError> {
    let key = UnboundKey::new(&AES_256_GCM, &[0x42; 32]).map_err(failed("AES key"))?;
    Ok(LessSafeKey::new(key))
}

/// The key is used for nothing, so that one nonce does no harm.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// With the copy that every caller of a PKCS#11 module pays as well.
fn raw_seal() -> Result<Operation, BenchError> {
    let (key, plaintext) = (raw_key()?, vec![0x17; PLAINTEXT_BYTES]);
    Ok(Box::new(move || {
        let mut data = plaintext.clone();
        let sealed = key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut data);
        sealed.map_err(failed("AES-GCM"))?;
        std::hint::black_box(data);
        Ok(())
    }))
}

fn raw_open() -> Result<Operation, BenchError> {
    let (key, mut ciphertext) = (raw_key()?, vec![0x17; PLAINTEXT_BYTES]);
    let sealed = key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut ciphertext);
    sealed.map_err(failed("AES-GCM"))?;
    Ok(Box::new(move || {
        let mut data = ciphertext.clone();
        let opened = key.open_in_place(nonce(), Aad::empty(), &mut data);
        std::hint::black_box(opened.map_err(failed("AES-GCM"))?);
        Ok(())
    }))
}

fn signature(
    algorithm: Algorithm,
    mechanism: Mechanism,
    digest_bytes: usize,
) -> Result<Operation, BenchError> {
    let key = AwsLc.generate_unchecked(algorithm, 0).map_err(failed("key generation"))?;
    let key: Box<dyn PrivateKey> =
        AwsLc.private_key(algorithm, &key.material).map_err(failed("opening a key"))?;
    Ok(Box::new(move || {
        let input = SignInput::Digest(DIGEST_BYTES.get(..digest_bytes).unwrap_or(&DIGEST_BYTES));
        let signature = key.sign(mechanism, input, b"").map_err(failed("signing"))?;
        std::hint::black_box(signature);
        Ok(())
    }))
}

fn key() -> Result<Material, BenchError> {
    Material::import(&mut [0x42; 32]).map_err(failed("AES key"))
}

const PARAMETERS: CipherParameters<'static> = CipherParameters { iv: &[0; 12], aad: b"" };

fn seal() -> Result<Operation, BenchError> {
    let (key, plaintext) = (key()?, vec![0x17; PLAINTEXT_BYTES]);
    Ok(Box::new(move || {
        let sealed = AwsLc.encrypt(Mechanism::AesGcm, &key, PARAMETERS, &plaintext);
        std::hint::black_box(sealed.map_err(failed("AES-GCM"))?);
        Ok(())
    }))
}

fn open() -> Result<Operation, BenchError> {
    let (key, plaintext) = (key()?, vec![0x17; PLAINTEXT_BYTES]);
    let sealed = AwsLc.encrypt(Mechanism::AesGcm, &key, PARAMETERS, &plaintext);
    let sealed = sealed.map_err(failed("AES-GCM"))?;
    Ok(Box::new(move || {
        let opened = AwsLc.decrypt(Mechanism::AesGcm, &key, PARAMETERS, &sealed);
        std::hint::black_box(opened.map_err(failed("AES-GCM"))?);
        Ok(())
    }))
}

/// Long enough for every hash function in here.
const DIGEST_BYTES: [u8; 64] = [DIGEST[0]; 64];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_a_figure_both_ways() {
        let mut primitives = Primitives::new().unwrap();
        let extent = Extent { operations_max: 3, time_max: std::time::Duration::from_secs(10) };
        for which in Primitive::ALL {
            let both = [primitives.raw(which, extent), primitives.provider(which, extent)];
            for sample in both.map(Result::unwrap) {
                assert!(sample.operations == 3 && sample.own_cpu_us > 0.0, "{which:?} {sample:?}");
            }
        }
    }
}
