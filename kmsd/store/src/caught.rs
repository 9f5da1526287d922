//! Turns the panics of a library that is given damaged files into errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a library said as it panicked.
#[derive(Debug, thiserror::Error)]
#[error("it panics: {0}")]
pub(crate) struct Panicked(pub(crate) String);

/// Calls what may panic. Whoever calls must not use again what the call was working on.
pub(crate) fn caught<T, E: From<Panicked>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(Panicked(text_of(&*panic)).into()))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
