//! AES key wrap, by `aes-kw`: it is faster here than AWS-LC, which has no AES-192 for it.

pub(super) use crate::wrap::{by_mechanism as wrap, open_by_mechanism as unwrap};
