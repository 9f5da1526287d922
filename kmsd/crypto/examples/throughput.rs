//! How a call of the default provider compares with the library underneath, on one thread, in turns so
//! that both see the same machine: AES-256-GCM over 64 KiB.
//!
//! `cargo run --release -p kms-crypto --example throughput`

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use kms_core::mechanism::Mechanism;
use kms_crypto::material::Material;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::{CipherParameters, Provider};

fn main() {
    let parameters = CipherParameters { iv: &[1; 12], aad: b"" };
    let key = Material::import(&mut [7; 32]).expect("the arena is new");
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
    let nonce = || Nonce::assume_unique_for_key([1; 12]);
    let text = vec![5; TEXT_BYTES];
    let sealed = AwsLc.encrypt(Mechanism::AesGcm, &key, parameters, &text).expect("it fits");
    let mut buffer = text.clone();

    let [seal, raw_seal, raw_in_place, open, raw_open] = fastest([
        &mut || {
            black_box(AwsLc.encrypt(Mechanism::AesGcm, &key, parameters, black_box(&text)).is_ok())
        },
        &mut || {
            let mut out = black_box(&text).clone();
            let sealed = raw.seal_in_place_append_tag(nonce(), Aad::empty(), &mut out);
            black_box(sealed.is_ok() && out.len() == TEXT_BYTES + 16)
        },
        &mut || {
            black_box(
                raw.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut buffer))
                    .is_ok(),
            )
        },
        &mut || {
            let opened = AwsLc.decrypt(Mechanism::AesGcm, &key, parameters, black_box(&sealed));
            black_box(opened.is_ok())
        },
        &mut || {
            let mut out = black_box(&sealed).clone();
            black_box(raw.open_in_place(nonce(), Aad::empty(), &mut out).is_ok())
        },
    ]);
    println!(
        "seal: {seal:?} a call, raw {raw_seal:?} into a new buffer, {raw_in_place:?} in place"
    );
    println!("open: {open:?} a call, raw {raw_open:?} in a new buffer");
    println!("share of raw: seal {:.3}, open {:.3}", share(raw_seal, seal), share(raw_open, open));
    println!("share of raw in place: seal {:.3}", share(raw_in_place, seal));
}

/// The fastest round of each, rounds taken in turns.
fn fastest<const N: usize>(mut calls: [&mut dyn FnMut() -> bool; N]) -> [Duration; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..ROUNDS {
        for (call, best) in calls.iter_mut().zip(&mut best) {
            let begun = Instant::now();
            for _ in 0..CALLS {
                assert!(call());
            }
            *best = (*best).min(begun.elapsed() / CALLS);
        }
    }
    best
}

fn share(raw: Duration, ours: Duration) -> f64 {
    raw.as_secs_f64() / ours.as_secs_f64()
}

const TEXT_BYTES: usize = 64 * 1024;
const ROUNDS: usize = 200;
const CALLS: u32 = 100;
