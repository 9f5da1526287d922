//! Overwrites what computations with keys leave behind on the stack.
//!
//! [`crate::material::Material`] is wiped when it is dropped, and AWS-LC wipes what it frees. But key
//! schedules, parsed numbers and arrays that are moved also stand for a while in frames of functions that
//! have returned, and stay there until something else happens to use that much stack. Whoever computes with
//! a key does it inside [`wiping`].

use core::hint::black_box;

/// Runs `work` and overwrites the part of the stack that it used, as far as it is not deeper than
/// [`WIPED_BYTES`].
#[inline(never)]
pub(crate) fn wiping<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(test)]
    let work = || tests::measured(WIPED_BYTES, work);
    let result = run(work);
    wipe::<WIPED_BYTES>();
    result
}

/// As [`wiping`], for what takes much stack: ML-DSA, and making and importing keys.
#[inline(never)]
pub(crate) fn wiping_much<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(test)]
    let work = || tests::measured(WIPED_MUCH_BYTES, work);
    let result = run(work);
    wipe::<WIPED_MUCH_BYTES>();
    result
}

/// As [`wiping`], for what is done many times a second and needs little stack.
#[inline(never)]
pub(crate) fn wiping_little<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(test)]
    let work = || tests::measured(WIPED_LITTLE_BYTES, work);
    let result = run(work);
    wipe::<WIPED_LITTLE_BYTES>();
    result
}

/// Not inlined, so that all of `work` stands below the frame of the caller.
#[inline(never)]
fn run<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Takes as much stack as `work` did, and fills it with zeros.
#[inline(never)]
fn wipe<const N: usize>() {
    let mut zeros = [0_u8; N];
    // Nobody may believe that these bytes are never looked at, and leave them out.
    black_box(&mut zeros);
}

/// More than ML-KEM, X-Wing, hash trees and RSA take: 59 kB were seen. As for the others, the test below
/// measures it, and asks for a third to spare.
const WIPED_BYTES: usize = 96 * 1024;
/// More than curves, ciphers, codes and derivations take: 21 kB were seen, of signing with secp256k1.
const WIPED_LITTLE_BYTES: usize = 32 * 1024;
/// More than ML-DSA-87 takes: 314 kB were seen, of signing. A thread of the daemon has 2 MiB.
const WIPED_MUCH_BYTES: usize = 416 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;

    use kms_core::algorithm::Algorithm;
    use kms_core::transcript::{Recipient, Suite};

    use super::*;
    use crate::material::Material;
    use crate::provider::awslc::AwsLc;
    use crate::release::seal;
    use crate::selftest::{SelfTests, pairwise_consistent};

    /// What a thread has measured: how deep work went, by how much is wiped after it.
    struct Measured {
        memory: File,
        seen: Vec<u8>,
        deepest: BTreeMap<usize, usize>,
    }

    thread_local! {
        static MEASURED: RefCell<Option<Measured>> = const { RefCell::new(None) };
    }

    /// Runs `work`, and sees how deep it goes where the thread is one that measures.
    pub(super) fn measured<R>(wiped_bytes: usize, work: impl FnOnce() -> R) -> R {
        // Taken out meanwhile: what wipes within what wipes is not measured.
        let Some(mut measured) = MEASURED.take() else { return work() };
        let lowest = paint();
        let result = run(work);
        measured.memory.read_exact_at(&mut measured.seen, lowest as u64).unwrap();
        let untouched = measured.seen.iter().take_while(|byte| **byte == PAINT).count();
        assert!(untouched > 0, "more stack than was painted");
        let deepest = measured.deepest.entry(wiped_bytes).or_default();
        *deepest = (*deepest).max(PAINTED_BYTES - untouched);
        MEASURED.set(Some(measured));
        result
    }

    /// Fills the stack below the caller, and gives where that begins.
    #[inline(never)]
    fn paint() -> usize {
        let mut paint = [PAINT; PAINTED_BYTES];
        black_box(&mut paint).as_ptr().addr()
    }

    /// Everything that is done with keys, by the provider that the daemon has.
    fn all_work() {
        let tests = SelfTests::new(Arc::new(AwsLc));
        tests.run().unwrap();
        let provider = tests.provider();
        for algorithm in Algorithm::ALL {
            if let Algorithm::Rsa3072 | Algorithm::Rsa4096 = algorithm {
                // The self-tests have used one; to make one takes long.
                continue;
            }
            let length_bytes = [16, 24, 32, 64, 0];
            let made = length_bytes.iter().find_map(|length_bytes| {
                provider.generate_unchecked(*algorithm, *length_bytes).ok()
            });
            let made = made.unwrap();
            pairwise_consistent(provider, *algorithm, &made).unwrap();
            provider.import(*algorithm, &made.material).unwrap();
            if *algorithm == Algorithm::XWing {
                let recipient =
                    Recipient::new(Suite::XWingHkdfSha256Aes256Gcm, made.public_key).unwrap();
                seal(&recipient, b"info", b"aad", &made.material).unwrap();
            }
        }
        let key = Material::copied(&[1; 32]).unwrap();
        let wrapped = crate::wrap::wrap(&key, &key).unwrap();
        crate::wrap::unwrap(&key, &wrapped).unwrap();
        crate::kdf::derive(&key, b"salt", "label", b"context").unwrap();
    }

    #[test]
    fn more_is_wiped_than_any_work_with_a_key_takes() {
        let measuring = std::thread::Builder::new().stack_size(8 * PAINTED_BYTES).spawn(|| {
            let memory = File::open("/proc/self/mem").unwrap();
            let seen = vec![0; PAINTED_BYTES];
            MEASURED.set(Some(Measured { memory, seen, deepest: BTreeMap::new() }));
            all_work();
            MEASURED.take().unwrap().deepest
        });
        let deepest = measuring.unwrap().join().unwrap();
        println!("wiped and used: {deepest:?}");
        assert_eq!(deepest.len(), 3, "{deepest:?}");
        for (wiped_bytes, deepest_bytes) in deepest {
            // A third more, for a compiler that lays the frames out otherwise.
            assert!(deepest_bytes * 4 / 3 <= wiped_bytes, "{deepest_bytes} of {wiped_bytes}");
        }
    }

    const PAINT: u8 = 0xa5;
    const PAINTED_BYTES: usize = 1024 * 1024;
}
