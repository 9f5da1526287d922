//! The time, read in one place. Under `kmsd dev` a file may move it, so that what takes months in life
//! takes a moment in a test.

#[cfg(feature = "dev")]
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use kms_core::id::Timestamp;

/// Tells the time.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The machine's.
    Machine,
    /// The machine's, plus the milliseconds that stand in a file; a file that is not there, or holds
    /// something else, moves nothing. It is read each time.
    #[cfg(feature = "dev")]
    Moved(PathBuf),
}

impl Clock {
    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let machine = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        match self {
            Self::Machine => machine,
            #[cfg(feature = "dev")]
            Self::Moved(file) => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                machine.plus_ms(text.trim().parse().unwrap_or_default())
            }
        }
    }
}
