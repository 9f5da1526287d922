//! A security key made of software, for tests: it signs as PROTOCOL.u2f says, and says of its user what it
//! is told to say. The same secret also signs as a key in a file.

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, SkEcdsaSha2NistP256, SkEd25519};
use ssh_key::{Algorithm, HashAlg, LineEnding, PublicKey, Signature, SshSig};

/// One secret.
pub(crate) enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

/// What a security key says of its user: touched.
pub(crate) const TOUCHED: u8 = 1;
/// Touched, and by PIN or fingerprint.
pub(crate) const VERIFIED: u8 = 1 | 4;

impl Secret {
    pub(crate) fn ed25519(seed: u8) -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
    }

    pub(crate) fn p256(seed: u8) -> Self {
        Self::P256(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    /// The public key: in a file, or in a security key for an application.
    pub(crate) fn public(&self, application: Option<&str>) -> KeyData {
        match self {
            Self::Ed25519(secret) => {
                let key = Ed25519PublicKey(secret.verifying_key().to_bytes());
                let in_token = |application| SkEd25519::new(key, application).into();
                application.map_or_else(|| key.into(), in_token)
            }
            Self::P256(secret) => {
                let key = EcdsaPublicKey::from(secret.verifying_key());
                let EcdsaPublicKey::NistP256(point) = key else { panic!("{key}") };
                let in_token = |application| SkEcdsaSha2NistP256::new(point, application).into();
                application.map_or_else(|| key.into(), in_token)
            }
        }
    }

    /// The public key as a line of a file.
    pub(crate) fn line(&self, application: Option<&str>) -> String {
        PublicKey::from(self.public(application)).to_openssh().unwrap()
    }

    /// What `ssh-keygen -Y sign` makes with the key in a file.
    pub(crate) fn sign(&self, namespace: &str, message: &[u8]) -> String {
        let signed = SshSig::signed_data(namespace, HashAlg::Sha512, message).unwrap();
        armored(self.public(None), namespace, self.signature(&signed))
    }

    /// What it makes with the security key, which says `flags` of its user.
    pub(crate) fn sign_in_token(
        &self,
        application: &str,
        flags: u8,
        namespace: &str,
        message: &[u8],
    ) -> String {
        let key = self.public(Some(application));
        let signature = self.token_signature(application, flags, namespace, message);
        armored(key, namespace, signature)
    }

    /// The bare signature of the security key.
    pub(crate) fn token_signature(
        &self,
        application: &str,
        flags: u8,
        namespace: &str,
        message: &[u8],
    ) -> Signature {
        let message = SshSig::signed_data(namespace, HashAlg::Sha512, message).unwrap();
        let said = [&[flags][..], &7_u32.to_be_bytes()].concat();
        let parts = [&Sha256::digest(application)[..], &said, &Sha256::digest(message)];
        let bare = self.signature(&parts.concat());
        let algorithm = self.public(Some(application)).algorithm();
        Signature::new(algorithm, [bare.as_bytes(), &said].concat()).unwrap()
    }

    fn signature(&self, bytes: &[u8]) -> Signature {
        match self {
            Self::Ed25519(secret) => {
                Signature::new(Algorithm::Ed25519, secret.sign(bytes).to_vec()).unwrap()
            }
            Self::P256(secret) => {
                let signature: p256::ecdsa::Signature = secret.sign(bytes);
                Signature::try_from(signature).unwrap()
            }
        }
    }
}

/// The signature as a file, by whatever it says is its key.
pub(crate) fn armored(key: impl Into<KeyData>, namespace: &str, signature: Signature) -> String {
    let sshsig = SshSig::new(key.into(), namespace, HashAlg::Sha512, signature).unwrap();
    sshsig.to_pem(LineEnding::LF).unwrap()
}
