//! Random bytes, from the same validated generator for everything.
//!
//! A failure refuses; nothing falls back to a weaker source. Keys, IVs, salts, nonces and the bytes
//! that callers ask for all come from here.

use core::convert::Infallible;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hpke::rand_core::{TryCryptoRng, TryRng};

use crate::CryptoError;

/// Fills `bytes`.
///
/// # Errors
/// [`CryptoError::RandomFailed`] when the generator does.
pub fn fill(bytes: &mut [u8]) -> Result<(), CryptoError> {
    SystemRandom::new().fill(bytes).map_err(|_| CryptoError::RandomFailed)
}

/// `N` random bytes, for what is not secret: nonces, identifiers, salts.
///
/// # Errors
/// [`CryptoError::RandomFailed`] when the generator does.
pub fn array<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// The same generator in the shape that the pure-Rust crates want, which knows no failure: it notes
/// one, and whoever used it must ask [`LatchedRng::check`] before the result leaves the function.
#[derive(Default)]
pub(crate) struct LatchedRng {
    failed: bool,
}

impl LatchedRng {
    pub(crate) const fn check(&self) -> Result<(), CryptoError> {
        if self.failed { Err(CryptoError::RandomFailed) } else { Ok(()) }
    }
}

impl TryRng for LatchedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.failed |= fill(bytes).is_err();
        Ok(())
    }
}

impl TryCryptoRng for LatchedRng {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        assert_ne!(array::<32>().unwrap(), array::<32>().unwrap());
    }

    #[test]
    fn a_failure_once_noted_stays_noted() {
        let mut rng = LatchedRng { failed: true };
        let Ok(_) = rng.try_next_u64();
        assert_eq!(rng.check(), Err(CryptoError::RandomFailed));
        assert_eq!(LatchedRng::default().check(), Ok(()));
    }
}
