//! Published vectors for key pairs through our own functions, with both providers: what must be refused
//! is refused. See `support/vectors.rs` for where the files are.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[path = "asymmetric/curves.rs"]
mod curves;
#[path = "asymmetric/post_quantum.rs"]
mod post_quantum;
#[path = "asymmetric/rsa.rs"]
mod rsa;
#[path = "support/vectors.rs"]
mod vectors;
