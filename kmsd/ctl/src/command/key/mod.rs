//! `kmsctl key`: making and turning keys in `manage`, their life in `lifecycle`; their use is a file
//! per kind of use, with what is common in `operate`.

mod cipher;
mod csr;
mod document;
mod large;
mod lifecycle;
mod mac;
mod making;
mod manage;
mod operate;
mod proposed;
mod shape;
mod sign;
mod statement;
mod transfer;

pub(crate) use manage::{List, list};
pub(crate) use proposed::{Proposed, check_out, told};
pub(crate) use shape::Limits;
pub(crate) use transfer::{MaterialFile, Target, import, is_version};

use clap::Subcommand;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Report;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and its first version. Needs the role key-manager.
    #[command(after_help = manage::CREATE_HELP)]
    Create(manage::Create),
    /// List algorithms, their mechanisms and usages.
    #[command(after_help = manage::ALGORITHMS_HELP)]
    Algorithms {
        /// Only this one.
        #[arg(value_parser = shape::algorithm_names())]
        algorithm: Option<String>,
    },
    /// List the keys of a ring.
    #[command(after_help = manage::LIST_HELP)]
    List(List),
    /// Show one key.
    #[command(after_help = manage::SHOW_HELP)]
    Show {
        /// Key name.
        name: String,
    },
    /// Change labels or PKCS#11 attributes of a key. Needs the role key-manager.
    #[command(after_help = manage::UPDATE_HELP)]
    Update(manage::Update),
    /// Make the next version, which new signatures and ciphertexts use. Needs key-manager.
    #[command(after_help = manage::ROTATE_HELP)]
    Rotate(manage::Rotate),
    /// Retire the name of a key all of whose versions are destroyed.
    #[command(after_help = manage::DELETE_HELP)]
    Delete(manage::Delete),
    /// Trust a key to wrap others. Needs the role security-officer.
    #[command(after_help = manage::TRUST_HELP)]
    Trust {
        /// Key name.
        name: String,
    },
    /// Cease to trust it. Needs the role security-officer.
    #[command(after_help = manage::TRUST_HELP)]
    Untrust {
        /// Key name.
        name: String,
    },
    /// List the versions of a key.
    #[command(after_help = manage::SHOW_HELP)]
    Versions {
        /// Key name.
        name: String,
    },
    /// Show what has happened to a key and its versions, newest first.
    #[command(after_help = manage::HISTORY_HELP)]
    History {
        /// Key name.
        name: String,
    },
    /// Write the public key of a version, in PEM.
    #[command(after_help = manage::PUBLIC_HELP)]
    Public(manage::Public),
    /// PRE_ACTIVE to ACTIVE.
    #[command(after_help = lifecycle::STEP_HELP)]
    Activate(lifecycle::Target),
    /// ACTIVE to SUSPENDED: no use but verification, for now.
    #[command(after_help = lifecycle::STEP_HELP)]
    Suspend(lifecycle::Target),
    /// SUSPENDED to ACTIVE.
    #[command(after_help = lifecycle::STEP_HELP)]
    Resume(lifecycle::Target),
    /// ACTIVE or SUSPENDED to DEACTIVATED: protects nothing new.
    #[command(after_help = lifecycle::STEP_HELP)]
    Deactivate(lifecycle::Target),
    /// Any live state to COMPROMISED, with date and reason.
    #[command(after_help = lifecycle::COMPROMISE_HELP)]
    Compromise(lifecycle::Compromise),
    /// Set the date of destruction; restore takes it back until then.
    #[command(after_help = lifecycle::SCHEDULE_DESTROY_HELP)]
    ScheduleDestroy(lifecycle::ScheduleDestroy),
    /// DESTROY_SCHEDULED to DEACTIVATED.
    #[command(after_help = lifecycle::SCHEDULE_DESTROY_HELP)]
    Restore(lifecycle::Target),
    /// Take the last step of a version's life back, while there is time.
    #[command(after_help = lifecycle::UNDO_HELP)]
    Undo(lifecycle::Target),
    /// Switch a version on.
    #[command(after_help = lifecycle::ENABLE_HELP)]
    Enable(lifecycle::Target),
    /// Switch a version off, whatever its state.
    #[command(after_help = lifecycle::ENABLE_HELP)]
    Disable(lifecycle::Target),
    /// Set the dates on which a version is activated and deactivated.
    #[command(after_help = lifecycle::SET_DATES_HELP)]
    SetDates(lifecycle::SetDates),
    /// Put a certificate on a version, or take it off.
    #[command(after_help = lifecycle::SET_CERTIFICATE_HELP)]
    SetCertificate(lifecycle::SetCertificate),
    /// Erase the material of a version that is not ACTIVE or SUSPENDED. Cannot be undone.
    #[command(after_help = lifecycle::DESTROY_HELP)]
    Destroy(lifecycle::Target),
    /// Write a certificate request that the key signs. Needs the role crypto-user.
    #[command(after_help = csr::CSR_HELP)]
    Csr(csr::Csr),
    /// Fetch the appliance's signed statement of what a version is and where it comes from.
    #[command(after_help = statement::STATEMENT_HELP)]
    Statement(statement::Statement),
    /// Verify such a statement, without daemon and network.
    #[command(after_help = statement::VERIFY_HELP)]
    VerifyStatement(statement::VerifyStatement),
    /// Bring a key from outside. Needs the role key-manager.
    #[command(after_help = transfer::IMPORT_HELP)]
    Import(transfer::Import),
    /// Hand a version out, sealed, as a quorum approved.
    #[command(after_help = transfer::EXPORT_HELP)]
    Export(transfer::Export),
    /// Sign a message or its digest. Needs the role crypto-user, as all that follow.
    #[command(after_help = sign::SIGN_HELP)]
    Sign(sign::Sign),
    /// Check a signature. Exit code 3 when it is not valid.
    #[command(after_help = sign::VERIFY_HELP)]
    Verify(sign::Verify),
    /// Encrypt a file.
    #[command(after_help = cipher::ENCRYPT_HELP)]
    Encrypt(cipher::Encrypt),
    /// Decrypt what encrypt wrote.
    #[command(after_help = cipher::ENCRYPT_HELP)]
    Decrypt(cipher::Decrypt),
    /// Make a message authentication code.
    #[command(after_help = mac::MAC_HELP)]
    Mac(mac::Mac),
    /// Check a message authentication code. Exit code 3 when it is not valid.
    #[command(after_help = mac::MAC_HELP)]
    MacVerify(mac::MacVerify),
    /// Hash a file.
    #[command(after_help = mac::DIGEST_HELP)]
    Digest(mac::Digest),
    /// Protect a key of the appliance with a wrapping key of the appliance.
    #[command(after_help = making::WRAP_HELP)]
    Wrap(making::Wrap),
    /// Take in a key that a wrapping key protected.
    #[command(after_help = making::UNWRAP_HELP)]
    Unwrap(making::Unwrap),
    /// Make a new key out of one.
    #[command(after_help = making::DERIVE_HELP)]
    Derive(making::Derive),
    /// Agree on a new key with the owner of a public key.
    #[command(after_help = making::AGREE_HELP)]
    Agree(making::Agree),
    /// Make a new key, and tell it to the owner of a public key.
    #[command(after_help = making::ENCAPSULATE_HELP)]
    Encapsulate(making::Encapsulate),
    /// Make the key that encapsulate told.
    #[command(after_help = making::ENCAPSULATE_HELP)]
    Decapsulate(making::Decapsulate),
    /// Give the material of a version another name.
    #[command(after_help = making::COPY_HELP)]
    Copy(making::Copy),
    /// Move a ciphertext to another key or version, unseen.
    #[command(after_help = making::RE_ENCRYPT_HELP)]
    ReEncrypt(making::ReEncrypt),
    /// Make a key for your own use, wrapped by a key of the appliance.
    #[command(after_help = making::DATA_KEY_HELP)]
    DataKey(making::DataKey),
}

impl Key {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Create(command) => command.run(connection).await,
            Self::Algorithms { algorithm } => Ok(manage::algorithms(algorithm.as_deref())),
            Self::List(command) => list(connection, command).await,
            Self::Show { name } => manage::show(connection, name).await,
            Self::Update(command) => command.run(connection).await,
            Self::Rotate(command) => command.run(connection).await,
            Self::Delete(command) => command.run(connection).await,
            Self::Trust { name } => manage::set_trusted(connection, name, true).await,
            Self::Untrust { name } => manage::set_trusted(connection, name, false).await,
            Self::Versions { name } => manage::versions(connection, name).await,
            Self::History { name } => manage::history(connection, name).await,
            Self::Public(command) => command.run(connection).await,
            Self::Activate(target) => target.activate(connection).await,
            Self::Suspend(target) => target.suspend(connection).await,
            Self::Resume(target) => target.resume(connection).await,
            Self::Deactivate(target) => target.deactivate(connection).await,
            Self::Compromise(command) => command.run(connection).await,
            Self::ScheduleDestroy(command) => command.run(connection).await,
            Self::Restore(target) => target.restore(connection).await,
            Self::Undo(target) => target.undo(connection).await,
            Self::Enable(target) => target.enable(connection).await,
            Self::Disable(target) => target.disable(connection).await,
            Self::SetDates(command) => command.run(connection).await,
            Self::SetCertificate(command) => command.run(connection).await,
            Self::Destroy(target) => target.destroy(connection).await,
            Self::Csr(command) => command.run(connection).await,
            Self::Statement(command) => command.run(connection).await,
            Self::VerifyStatement(command) => command.run(),
            Self::Import(command) => command.run(connection).await,
            Self::Export(command) => command.run(connection).await,
            Self::Sign(command) => command.run(connection).await,
            Self::Verify(command) => command.run(connection).await,
            Self::Encrypt(command) => command.run(connection).await,
            Self::Decrypt(command) => command.run(connection).await,
            Self::Mac(command) => command.run(connection).await,
            Self::MacVerify(command) => command.run(connection).await,
            Self::Digest(command) => command.run(connection).await,
            Self::Wrap(command) => command.run(connection).await,
            Self::Unwrap(command) => command.run(connection).await,
            Self::Derive(command) => command.run(connection).await,
            Self::Agree(command) => command.run(connection).await,
            Self::Encapsulate(command) => command.run(connection).await,
            Self::Decapsulate(command) => command.run(connection).await,
            Self::Copy(command) => command.run(connection).await,
            Self::ReEncrypt(command) => command.run(connection).await,
            Self::DataKey(command) => command.run(connection).await,
        }
    }
}
