//! What can keep a workload from its key.

use kms_client::ClientError;
use kms_core::receipt::ReceiptError;

use crate::attester::AttesterError;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The daemon answered what the contract does not allow. Not the daemon, or another version.
    #[error("the daemon's answer cannot be used: {0}")]
    Answer(&'static str),
    /// No evidence is to be had on this machine.
    #[error(transparent)]
    Attester(#[from] AttesterError),
    /// The call failed or was refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The connection was replaced between challenge and release. Trying again helps.
    #[error("the connection broke during the release; start again")]
    ConnectionChanged,
    /// The daemon's log key is not the one that the caller trusts. Another appliance, or an attack.
    #[error(
        "the daemon has another log key than the pinned one; do not use it before you know why"
    )]
    LogKey,
    /// The sealed key does not open under this request. Another recipient's, or an attack.
    #[error("the answer does not open under this request's transcript")]
    Open,
    /// The machine gives no randomness.
    #[error("the machine gives no random bytes")]
    Randomness,
    /// The receipt does not convince.
    #[error("the receipt of the release does not convince: {0}")]
    Receipt(#[from] ReceiptError),
    /// The receipt is good, and of another release.
    #[error("the receipt is not that of this release: {0} differs")]
    ReceiptDiffers(&'static str),
}
