//! `kmsctl key`: making and turning keys in `manage`, their life in `lifecycle`, their use in
//! `operate`.

mod lifecycle;
mod manage;
mod operate;

use clap::Subcommand;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Report;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and its first version. Needs the role key-manager.
    #[command(after_help = manage::CREATE_HELP)]
    Create(manage::Create),
    /// List the keys of a ring.
    List {
        /// Ring name.
        ring: String,
    },
    /// Show one key.
    Show {
        /// Key name.
        name: String,
    },
    /// Change labels or PKCS#11 attributes of a key. Needs the role key-manager.
    #[command(after_help = manage::UPDATE_HELP)]
    Update(manage::Update),
    /// Make the next version, which new signatures and ciphertexts use. Needs key-manager.
    Rotate {
        /// Key name.
        name: String,
    },
    /// List the versions of a key.
    Versions {
        /// Key name.
        name: String,
    },
    /// Write the public key of a version, in PEM.
    Public(manage::Public),
    /// PRE_ACTIVE to ACTIVE.
    Activate(lifecycle::Target),
    /// ACTIVE to SUSPENDED: no use but verification, for now.
    Suspend(lifecycle::Target),
    /// SUSPENDED to ACTIVE.
    Resume(lifecycle::Target),
    /// ACTIVE or SUSPENDED to DEACTIVATED: protects nothing new.
    Deactivate(lifecycle::Target),
    /// Any live state to COMPROMISED.
    Compromise(lifecycle::Target),
    /// Erase the material of a version that is not ACTIVE or SUSPENDED. Cannot be undone.
    #[command(after_help = lifecycle::DESTROY_HELP)]
    Destroy(lifecycle::Target),
    /// Sign a message or its SHA-256 digest. Needs the role crypto-user, as all that follow.
    #[command(after_help = operate::SIGN_HELP)]
    Sign(operate::Sign),
    /// Check a signature. Exit code 3 when it is not valid.
    Verify(operate::Verify),
    /// Encrypt a file of at most 64 KiB.
    #[command(after_help = operate::ENCRYPT_HELP)]
    Encrypt(operate::Encrypt),
    /// Decrypt what encrypt wrote.
    Decrypt(operate::Decrypt),
    /// Make a message authentication code.
    Mac(operate::Mac),
    /// Check a message authentication code. Exit code 3 when it is not valid.
    MacVerify(operate::MacVerify),
}

impl Key {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Create(command) => command.run(connection).await,
            Self::List { ring } => manage::list(connection, ring).await,
            Self::Show { name } => manage::show(connection, name).await,
            Self::Update(command) => command.run(connection).await,
            Self::Rotate { name } => manage::rotate(connection, name).await,
            Self::Versions { name } => manage::versions(connection, name).await,
            Self::Public(command) => command.run(connection).await,
            Self::Activate(target) => target.activate(connection).await,
            Self::Suspend(target) => target.suspend(connection).await,
            Self::Resume(target) => target.resume(connection).await,
            Self::Deactivate(target) => target.deactivate(connection).await,
            Self::Compromise(target) => target.compromise(connection).await,
            Self::Destroy(target) => target.destroy(connection).await,
            Self::Sign(command) => command.run(connection).await,
            Self::Verify(command) => command.run(connection).await,
            Self::Encrypt(command) => command.run(connection).await,
            Self::Decrypt(command) => command.run(connection).await,
            Self::Mac(command) => command.run(connection).await,
            Self::MacVerify(command) => command.run(connection).await,
        }
    }
}
