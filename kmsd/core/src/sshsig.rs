//! Signatures that people make with `ssh-keygen -Y sign` (PROTOCOL.sshsig), checked strictly: by keys
//! that are enrolled, and by certificates of enrolled authorities.
//!
//! What a key is called does not matter here, only what it is: the same point on the same curve is one
//! key, as a file, in a security key, for whichever application, and in every certificate. Otherwise one
//! person could be two approvers.

mod authority;
mod credential;
#[cfg(test)]
mod security_key;
#[cfg(test)]
mod tests;

use core::fmt;

use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, PublicKey, Signature, SshSig};

use crate::id::{Digest, PrincipalName, Timestamp};

pub use authority::{CertificateError, Revoked, SshAuthority};
pub use credential::SshCredential;

/// Why a signature or key is refused. The signer's mistake or a forgery.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Made by a certificate that does not count.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// Not an SSH public key that we take.
    #[error("not an SSH public key of type ed25519, ecdsa (P-256, P-384) or their sk- forms")]
    Key,
    /// Not an armored SSH signature.
    #[error("not an SSH signature; make one with: ssh-keygen -Y sign -n NAMESPACE -f KEY FILE")]
    Malformed,
    /// Made for something else.
    #[error("the signature was made for another namespace or with another hash than sha512")]
    Namespace,
    /// Options before a key that we do not take, or not for such a key.
    #[error(
        "before an SSH key stand no other options than verify-required (for sk- keys), cert-authority and principals=\"NAME,…\" (with cert-authority)"
    )]
    Options,
    /// Nobody touched the security key: whatever runs on the machine can have asked it to sign.
    #[error("the security key signed without being touched")]
    Untouched,
    /// The security key did not ask for its PIN or fingerprint, and this one must.
    #[error(
        "the security key did not verify who touched it; make a key with: ssh-keygen -O verify-required"
    )]
    Unverified,
    /// Another key, other bytes, or a broken signature.
    #[error("the signature is not that key's over these bytes")]
    Wrong,
}

/// Who is said to have signed, and what that principal is enrolled with.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The principal.
    pub principal: &'a PrincipalName,
    /// Its keys and authorities.
    pub enrolled: &'a [&'a SshCredential],
}

/// Checks that `armored` is a signature of `signer` over `message` in `namespace`, which counts `now`: a
/// certificate counts as long as it is valid, not as long as it was when it signed, since nothing proves
/// when that was. Gives what names the key that signed, whatever it is called.
///
/// # Errors
/// [`SignatureError`] saying which part is wrong.
pub fn verify(
    namespace: &str,
    message: &[u8],
    armored: &str,
    signer: Signer<'_>,
    now: Timestamp,
) -> Result<Digest, SignatureError> {
    if armored.len() > ARMORED_BYTES_MAX {
        return Err(SignatureError::Malformed);
    }
    let sshsig = SshSig::from_pem(armored).map_err(|_| SignatureError::Malformed)?;
    if sshsig.namespace() != namespace || sshsig.hash_alg() != HashAlg::Sha512 {
        return Err(SignatureError::Namespace);
    }
    // The library takes lower versions as well, and no version is signed.
    if sshsig.version() != SshSig::VERSION || !sshsig.reserved().is_empty() {
        return Err(SignatureError::Malformed);
    }
    let (key, verify_required) = match sshsig.public_key() {
        KeyData::Certificate(certificate) => {
            let verify_required = authority::certified(certificate, signer, now)?;
            (certificate.public_key(), verify_required)
        }
        key => (key, enrolled(key, signer)?),
    };
    check(namespace, message, key, sshsig.signature(), verify_required)?;
    identity(key)
}

/// Whether the signer has `key` itself; then, whether it must verify its user.
fn enrolled(key: &KeyData, signer: Signer<'_>) -> Result<bool, SignatureError> {
    let keys = signer.enrolled.iter().filter_map(|enrolled| enrolled.key());
    let of_this = keys.filter(|enrolled| enrolled.key.key_data() == key);
    // Whoever enrols a key twice means the stricter of the two.
    let strictest =
        of_this.map(|enrolled| enrolled.verify_required).reduce(|left, right| left || right);
    strictest.ok_or(SignatureError::Wrong)
}

/// Checks a signature by a plain key, and what a security key says of its user.
fn check(
    namespace: &str,
    message: &[u8],
    key: &KeyData,
    signature: &Signature,
    verify_required: bool,
) -> Result<(), SignatureError> {
    // The verifier of sk-ecdsa does not ask what the signature says it is.
    if signature.algorithm() != key.algorithm() {
        return Err(SignatureError::Wrong);
    }
    // A certificate does not verify signatures; the key in it does.
    let plain = SshSig::new(key.clone(), namespace, HashAlg::Sha512, signature.clone());
    let plain = plain.map_err(|_| SignatureError::Malformed)?;
    let verified = PublicKey::from(key.clone()).verify(namespace, message, &plain);
    verified.map_err(|_| SignatureError::Wrong)?;
    judge_flags(signature, verify_required)
}

/// Judges what a security key says of its user. It signs what it says, so this comes after the signature
/// was verified. The other flags (backup, extensions) are the key's own matter, as in OpenSSH.
fn judge_flags(signature: &Signature, verify_required: bool) -> Result<(), SignatureError> {
    if !is_security_key(&signature.algorithm()) {
        return if verify_required { Err(SignatureError::Unverified) } else { Ok(()) };
    }
    // PROTOCOL.u2f: the signature proper, then one byte of flags and four of the counter.
    let flags = signature.as_bytes().iter().rev().nth(COUNTER_BYTES).copied();
    let flags = flags.ok_or(SignatureError::Malformed)?;
    if flags & USER_PRESENT == 0 {
        Err(SignatureError::Untouched)
    } else if verify_required && flags & USER_VERIFIED == 0 {
        Err(SignatureError::Unverified)
    } else {
        Ok(())
    }
}

const fn is_security_key(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::SkEcdsaSha2NistP256 | Algorithm::SkEd25519)
}

/// What names a key: digest of its curve and raw point. The wire form would not do, since it holds the
/// type, and that of a security key the application as well.
///
/// # Errors
/// [`SignatureError::Key`] for keys that we do not take.
fn identity(key: &KeyData) -> Result<Digest, SignatureError> {
    let (curve, point): (&str, &[u8]) = match key {
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => (P256, point.as_bytes()),
        KeyData::Ecdsa(EcdsaPublicKey::NistP384(point)) => ("nistp384", point.as_bytes()),
        KeyData::Ed25519(key) => (ED25519, &key.0),
        KeyData::SkEcdsaSha2NistP256(key) => (P256, key.ec_point().as_bytes()),
        KeyData::SkEd25519(key) => (ED25519, &key.public_key().0),
        _ => return Err(SignatureError::Key),
    };
    // A compressed point would be a second name of the same one; OpenSSH does not take it either.
    let unique = match curve {
        ED25519 => !is_weak(point),
        _ => point.first() == Some(&UNCOMPRESSED),
    };
    let name = Digest::of(&[b"kms-approver-key", curve.as_bytes(), point]);
    if unique { Ok(name) } else { Err(SignatureError::Key) }
}

/// Whether anybody can sign for this point, as for those of small order, or nobody, since it is none.
fn is_weak(point: &[u8]) -> bool {
    let key = ed25519_dalek::VerifyingKey::try_from(point);
    key.map_or(true, |key| key.is_weak())
}

/// A person's SSH public key, without comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshKey {
    key: PublicKey,
    identity: Digest,
    verify_required: bool,
}

impl SshKey {
    fn new(key: PublicKey, verify_required: bool) -> Result<Self, SignatureError> {
        if verify_required && !is_security_key(&key.algorithm()) {
            return Err(SignatureError::Options);
        }
        let identity = identity(key.key_data())?;
        // Made anew of what was judged, which leaves the comment behind.
        Ok(Self { key: PublicKey::from(key.key_data().clone()), identity, verify_required })
    }

    /// What names the key: the same for the same point under whichever name.
    pub const fn identity(&self) -> Digest {
        self.identity
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verify_required {
            write!(f, "{} ", credential::VERIFY_REQUIRED)?;
        }
        f.write_str(&self.key.to_openssh().map_err(|_| fmt::Error)?)
    }
}

/// Longest armored signature that is read.
const ARMORED_BYTES_MAX: usize = 16 * 1024;
const ED25519: &str = "ed25519";
const P256: &str = "nistp256";
/// SEC 1 §2.3.3: what an uncompressed point begins with.
const UNCOMPRESSED: u8 = 4;
/// WebAuthn §6.1: the flags UP and UV.
const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 4;
const COUNTER_BYTES: usize = 4;
