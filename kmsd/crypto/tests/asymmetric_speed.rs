//! What a signature through our door costs above the library's own: a key is opened once, so nothing but
//! the answer's buffer. Measured with `KMS_LONG=1`, on one thread, alternating, the best round of each.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256,
};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::{Provider, SignInput};

const ROUNDS: usize = 40;
const RATIO_MIN: f64 = 0.95;

#[test]
fn signing_is_as_fast_as_the_library() {
    if std::env::var_os("KMS_LONG").is_none_or(|value| value != "1") {
        println!("skipped: a measurement, made with KMS_LONG=1");
        return;
    }
    let rng = SystemRandom::new();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    compare(Algorithm::EcP256, Mechanism::EcdsaSha256, 200, || {
        black_box(p256.sign(&rng, MESSAGE).unwrap());
    });
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    compare(Algorithm::EcP384, Mechanism::EcdsaSha384, 50, || {
        black_box(p384.sign(&rng, MESSAGE).unwrap());
    });
    let rsa = RsaKeyPair::generate(KeySize::Rsa3072).unwrap();
    let mut signature = vec![0; 384];
    compare(Algorithm::Rsa3072, Mechanism::RsaPssSha256, 5, || {
        rsa.sign(&RSA_PSS_SHA256, &rng, MESSAGE, &mut signature).unwrap();
        black_box(&signature);
    });
}

fn compare(algorithm: Algorithm, mechanism: Mechanism, times: usize, mut raw: impl FnMut()) {
    let key = AwsLc.generate_unchecked(algorithm, 0).unwrap();
    let key = AwsLc.private_key(algorithm, &key.material).unwrap();
    let mut ours = || {
        black_box(key.sign(mechanism, SignInput::Message(MESSAGE), b"").unwrap());
    };
    let (mut best_raw, mut best_ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best_raw = best_raw.min(time(times, &mut raw));
        best_ours = best_ours.min(time(times, &mut ours));
    }
    let ratio = best_raw.as_secs_f64() / best_ours.as_secs_f64();
    println!("{algorithm} {mechanism}: {ratio:.3} of the library's rate");
    assert!(ratio >= RATIO_MIN, "{algorithm}: {ratio}");
}

fn time(times: usize, work: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed()
}

const MESSAGE: &[u8] =
    b"a message of about the length that is signed most often: a digest or a token";
