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
    let result = run(work);
    wipe::<WIPED_BYTES>();
    result
}

/// As [`wiping`], for what is done many times a second and needs little stack.
#[inline(never)]
pub(crate) fn wiping_little<R>(work: impl FnOnce() -> R) -> R {
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

/// More than lattices, hash trees and RSA take; a thread of the daemon has 2 MiB.
const WIPED_BYTES: usize = 96 * 1024;
/// More than curves, ciphers and derivations take.
const WIPED_LITTLE_BYTES: usize = 16 * 1024;
