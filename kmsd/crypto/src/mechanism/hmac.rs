//! HMAC with SHA-256 (FIPS 198-1): parameters and known answer.

use super::known;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::Provider;

/// Makes and accepts the tag of test case 1 of RFC 4231, and refuses it with one bit changed or cut.
pub(crate) fn known_answer(provider: &dyn Provider) -> Result<bool, CryptoError> {
    let key = Material::copied(&[0x0b; 20])?;
    let mut tag = known(TAG);
    let made = provider.mac(&key, MESSAGE)?;
    let accepted = provider.mac_verify(&key, MESSAGE, &tag)?;
    let cut = provider.mac_verify(&key, MESSAGE, &tag[..TAG_BYTES - 1])?;
    tag[0] ^= 1;
    let edited = provider.mac_verify(&key, MESSAGE, &tag)?;
    Ok(made.as_slice() == known(TAG) && accepted && !cut && !edited)
}

/// Length of a key made here.
pub const KEY_BYTES: usize = 32;
/// Length of a tag. Shorter ones are refused, never compared in part.
pub const TAG_BYTES: usize = 32;

const MESSAGE: &[u8] = b"Hi There";
const TAG: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
