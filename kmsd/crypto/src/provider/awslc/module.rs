//! Which build of AWS-LC this is.

use kms_core::mechanism::Mechanism;

/// Whether it is the FIPS build (feature `fips`), and is in FIPS mode: its own self-tests have passed.
pub fn is_fips() -> bool {
    aws_lc_rs::try_fips_mode().is_ok()
}

/// The library's name for its own version.
pub fn version() -> String {
    let fips = if is_fips() { " FIPS" } else { "" };
    format!("AWS-LC{fips} {}", aws_lc_rs::awslc_version())
}

/// Whether AWS-LC does all of it. Where it does not, one of the pure-Rust libraries does the whole or a part,
/// outside of any module: the expansion of the seeds of ML-KEM and ML-DSA, the combiner of X-Wing, and
/// what AWS-LC lacks.
pub const fn carries_out(mechanism: Mechanism) -> bool {
    !matches!(
        mechanism,
        Mechanism::AesKw
            | Mechanism::AesKwp
            | Mechanism::HmacSha3_224
            | Mechanism::HmacSha3_256
            | Mechanism::HmacSha3_384
            | Mechanism::HmacSha3_512
            | Mechanism::HmacSha512_224
            | Mechanism::HmacSha512_256
            | Mechanism::MlDsa
            | Mechanism::MlKem
            | Mechanism::RsaPkcs1
            | Mechanism::RsaRaw
            | Mechanism::SlhDsa
            | Mechanism::XWing
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nobody takes one build for the other, nor a newer module for the one that was looked at.
    #[test]
    fn it_is_the_module_that_the_documents_name() {
        assert_eq!(is_fips(), cfg!(feature = "fips"));
        let expected = if cfg!(feature = "fips") { "AWS-LC FIPS 4." } else { "AWS-LC 5." };
        assert!(version().starts_with(expected), "{}", version());
    }
}
