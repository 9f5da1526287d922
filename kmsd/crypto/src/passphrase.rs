//! What people remember, stretched: argon2id (RFC 9106).
//!
//! Used by [`crate::unlock`] for the root's passphrase and by [`crate::pin`] for PINs. At most two run
//! at once, so that a hundred logins do not take a hundred times the memory; further ones wait.

use std::sync::{Condvar, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::CryptoError;

/// How much work one guess costs. Always within bounds, so that no edited file can ask for all memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Argon2Cost {
    m_kib: u32,
    t: u32,
    p: u32,
}

impl Argon2Cost {
    /// For people: 64 MiB, three passes, four lanes (RFC 9106 §4, second choice).
    pub const PEOPLE: Self = Self { m_kib: 64 * 1024, t: 3, p: 4 };

    /// A cost of `m_kib` KiB of memory, `t` passes and `p` lanes.
    ///
    /// # Errors
    /// [`CryptoError::CostOutOfBounds`] outside 8 KiB per lane to 512 MiB, 1 to 10 passes, 1 to 8
    /// lanes.
    pub const fn new(m_kib: u32, t: u32, p: u32) -> Result<Self, CryptoError> {
        let lanes = p >= 1 && p <= P_MAX;
        let passes = t >= 1 && t <= T_MAX;
        if lanes && passes && m_kib >= M_KIB_PER_LANE * p && m_kib <= M_KIB_MAX {
            Ok(Self { m_kib, t, p })
        } else {
            Err(CryptoError::CostOutOfBounds)
        }
    }

    /// Memory in KiB.
    pub const fn m_kib(self) -> u32 {
        self.m_kib
    }

    /// Passes.
    pub const fn t(self) -> u32 {
        self.t
    }

    /// Lanes.
    pub const fn p(self) -> u32 {
        self.p
    }
}

/// Fills `out` from the secret and the salt; wipes the memory that it worked in.
pub(crate) fn stretch(
    secret: &SecretString,
    salt: &[u8],
    cost: Argon2Cost,
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let out_of_bounds = |_| CryptoError::CostOutOfBounds;
    let params = Params::new(cost.m_kib, cost.t, cost.p, None).map_err(out_of_bounds)?;
    let block_count = params.block_count();
    let _turn = Turn::wait();
    let mut blocks = Zeroizing::new(Vec::new());
    blocks.try_reserve_exact(block_count).map_err(|_| CryptoError::ArenaUnavailable)?;
    blocks.resize(block_count, Block::new());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(secret.expose_secret().as_bytes(), salt, out, &mut *blocks)
        .map_err(out_of_bounds)
}

/// One of the two places at the stretcher.
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = FREED
            .wait_while(running, |running| *running >= RUNNING_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

const RUNNING_MAX: usize = 2;
const M_KIB_PER_LANE: u32 = 8;
const M_KIB_MAX: u32 = 512 * 1024;
const T_MAX: u32 = 10;
const P_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn costs_outside_the_bounds_do_not_exist() {
        for (m_kib, t, p) in [
            (7, 1, 1),
            (15, 1, 2),
            (8, 0, 1),
            (8, 1, 0),
            (8, 11, 1),
            (u32::MAX, 1, 1),
            (M_KIB_MAX + 1, 1, 1),
            (M_KIB_MAX, 1, 9),
            (M_KIB_MAX, 1, u32::MAX),
        ] {
            let refused = Argon2Cost::new(m_kib, t, p);
            assert_eq!(refused, Err(CryptoError::CostOutOfBounds), "{m_kib} {t} {p}");
        }
        let Argon2Cost { m_kib, t, p } = Argon2Cost::PEOPLE;
        assert_eq!(Argon2Cost::new(m_kib, t, p), Ok(Argon2Cost::PEOPLE));
    }

    #[test]
    fn it_is_argon2id_version_19() {
        // From the tests of the reference implementation (phc-winner-argon2, test.c): 2^8 KiB, two
        // passes, one lane.
        let cost = Argon2Cost::new(256, 2, 1).unwrap();
        let mut out = [0; 32];
        stretch(&"password".into(), b"somesalt", cost, &mut out).unwrap();
        let expected = "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe";
        assert_eq!(hex::encode(out), expected);
    }

    #[test]
    fn at_most_two_run_at_once() {
        static INSIDE: AtomicUsize = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = Turn::wait();
                        let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(inside <= RUNNING_MAX);
                        std::thread::yield_now();
                        INSIDE.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
