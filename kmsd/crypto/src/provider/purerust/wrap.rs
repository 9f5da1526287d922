//! AES key wrap, by `aes-kw`, which both providers share: the second opinion on it are the published
//! vectors.

pub(super) use crate::wrap::{by_mechanism as wrap, open_by_mechanism as unwrap};
