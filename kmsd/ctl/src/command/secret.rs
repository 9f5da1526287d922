//! `kmsctl secret`: opaque bytes under the rules of keys. A secret is a key of OPAQUE_SECRET whose versions
//! are all imported; its life, labels and history are those of `kmsctl key`.

use clap::{Args, Subcommand};

use super::key::{self, Limits, MaterialFile, Target};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Report;

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Store a new secret, or bring the next version of one. Needs the role key-manager.
    #[command(after_help = HELP)]
    Put(Box<Put>),
    /// List the secrets of a ring.
    #[command(after_help = HELP)]
    List {
        /// Ring name.
        ring: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// Its name, for example dev/password; or a version that is PENDING_IMPORT, for example dev/password@2.
    name: String,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    source: MaterialFile,
}

impl Secret {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Put(put) => {
                let Put { name, limits, source } = *put;
                let target = if key::is_version(&name) {
                    Target::Version(name)
                } else {
                    let algorithm = ALGORITHM.to_owned();
                    Target::NewKey { name, algorithm, limits: Box::new(limits) }
                };
                key::import(connection, target, source, false).await
            }
            Self::List { ring } => {
                key::list(connection, key::List::only(ring, format!("algorithm = {ALGORITHM}")))
                    .await
            }
        }
    }
}

const ALGORITHM: &str = "OPAQUE_SECRET";
const HELP: &str = "\
A secret has at most 64 KiB. It leaves the appliance released to a proven workload (--usage RELEASE
with --release-requirement), or exported under a quorum (--exportable).

Examples:
  kmsctl secret put dev/password --in password.txt --usage RELEASE \\
    --release-requirement release.json
  kmsctl key rotate dev/password --pending-import
  kmsctl secret put dev/password@2 --in new.txt
  kmsctl secret list dev";
