//! The tree of commands: noun, then verb.

use clap::{Parser, Subcommand};

use crate::command::{
    appliance, attest, audit, key, keyring, proposal, random, release, seal, secret, shell, store,
    token, user,
};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::{Format, Report};

/// Manage keys, people, approvals and the audit log of a key-management appliance.
#[derive(Debug, Parser)]
#[command(name = "kmsctl", version, after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Tables for people, JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Key rings, which are also PKCS#11 tokens.
    #[command(subcommand, visible_alias = "ring")]
    Keyring(keyring::Keyring),
    /// Keys: make, turn, end and use them.
    #[command(subcommand)]
    Key(key::Key),
    /// Secrets: opaque bytes under the rules of keys.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Random bytes from the appliance.
    Random(random::Random),
    /// People and programs, and what they may do.
    #[command(subcommand)]
    User(user::User),
    /// Show who the appliance takes you for.
    #[command(after_help = user::WHOAMI_HELP)]
    Whoami,
    /// Key rings as PKCS#11 tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Ask for, give and use approvals of guarded actions.
    #[command(subcommand)]
    Proposal(proposal::Proposal),
    /// Receipts of keys that were released to workloads.
    #[command(subcommand)]
    Release(release::Release),
    /// The audit log: read, export and verify it.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Attestation evidence, examined offline.
    #[command(subcommand)]
    Attest(attest::Attest),
    /// Open and close the root key.
    #[command(subcommand)]
    Seal(seal::Seal),
    /// The appliance itself: libraries and self tests.
    #[command(subcommand)]
    Appliance(appliance::Appliance),
    /// The store of a daemon that does not run: check, rebuild, stats.
    #[command(subcommand)]
    Store(store::Store),
    /// Write shell completions to standard output.
    Completions(shell::Completions),
    /// Write manual pages into a folder.
    Man(shell::Man),
}

impl Command {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Keyring(command) => command.run(connection).await,
            Self::Key(command) => command.run(connection).await,
            Self::Secret(command) => command.run(connection).await,
            Self::Random(command) => command.run(connection).await,
            Self::User(command) => command.run(connection).await,
            Self::Whoami => user::whoami(connection).await,
            Self::Token(command) => command.run(connection).await,
            Self::Proposal(command) => command.run(connection).await,
            Self::Release(command) => command.run(),
            Self::Audit(command) => command.run(connection).await,
            Self::Attest(command) => command.run(),
            Self::Seal(command) => command.run(connection).await,
            Self::Appliance(command) => command.run(connection).await,
            Self::Store(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }
}

const HELP: &str = "\
Examples:
  export KMS_ADDR=unix:/run/kmsd/kmsd.sock
  kmsctl keyring create dev
  kmsctl key create dev/k1 --algorithm EC_P256
  kmsctl key sign dev/k1 --message-file letter.txt --out letter.sig
  kmsctl audit tail

Names: a ring is dev, a key is dev/k1, its version 3 is dev/k1@3; full names are taken too.
Files: - means standard input or standard output.

Exit codes: 0 done, 1 failure, 2 usage, 3 refused or not accepted, 4 needs approval,
5 unavailable.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_read_as_documented() {
        for line in [
            "keyring create dev",
            "key create dev/k1 --algorithm EC_P256 --label k=v --usage SIGN",
            "key create dev/s --algorithm GENERIC_SECRET --length-bytes 64 --exportable --usage EXPORT",
            "key create dev/r --algorithm AES_256 --rotate-every 90d --rotate-after-uses 1000",
            "key create dev/d --algorithm EC_P384 --activate-at 2027-01-01T00:00:00Z --pending-import",
            "key algorithms AES_256",
            "key history dev/k1",
            "key delete dev/k1 --etag e",
            "key trust dev/k1",
            "key untrust dev/k1",
            "key compromise dev/k1@1 --reason KEY_COMPROMISE --since 2026-01-01T00:00:00Z",
            "key schedule-destroy dev/k1@1 --in 30d",
            "key schedule-destroy dev/k1@1 --at 2027-01-01T00:00:00Z",
            "key restore dev/k1@1",
            "key undo dev/k1@1 --etag e",
            "key enable dev/k1@1",
            "key disable dev/k1@1",
            "key set-dates dev/k1@1 --deactivate-at 2027-01-01T00:00:00Z",
            "key set-certificate dev/k1@1 --remove",
            "key rotate dev/k1 --pre-active",
            "key update dev/k1 --usage VERIFY --not-exportable --primary 2 --no-rotation",
            "key sign dev/k1 --digest-file d --out -",
            "key verify dev/k1 --message-file m --signature s",
            "key sign dev/k1 --message-file m --mechanism RSA_PSS_SHA384 --context 0a --out s",
            "key encrypt dev/a --in p --out c --aad-file a",
            "key encrypt dev/a --in p --out c --mechanism AES_CTR --iv 00112233445566778899aabbccddeeff",
            "key digest dev --hash SHA3_512 --in f",
            "key csr dev/t --subject CN=a,O=b --san www.example --san 192.0.2.1 --out t.csr",
            "key statement dev/k1 --nonce 0011 --out s --chain-out c",
            "key import dev/t --algorithm RSA_2048 --in k.pem --method rsa --passphrase-file p",
            "key import dev/t@2 --in k.pem --pre-active",
            "key import dev/p --algorithm EC_P256 --public --in p.pem --usage VERIFY",
            "key export dev/k1@1 --private-key k.pem",
            "key export dev/k1@1 --public-key k.pem --proposal proposals/x --out f",
            "key wrap dev/kek dev/k1@1 --out w --raw",
            "key unwrap dev/k2 --algorithm AES_256 --in w --with dev/kek@1 --by AES_KWP --exportable",
            "key derive dev/b dev/n --algorithm AES_256 --kdf HKDF_SHA256 --salt 00 --info 01",
            "key agree dev/x dev/n --algorithm AES_128 --peer p.pem --kdf HKDF_SHA384",
            "key encapsulate dev/kem dev/n --algorithm AES_256 --out c",
            "key decapsulate dev/kem@1 dev/n --algorithm AES_256 --in c",
            "key copy dev/k1@1 dev/k2 --usage VERIFY --label a=b",
            "key re-encrypt --in c --to dev/a --mechanism AES_GCM --out d",
            "key data-key dev/a --bytes 16 --out w --out-plaintext -",
            "secret put dev/s --in f --exportable --label a=b",
            "secret list dev",
            "ring create dev --compatible",
            "keyring policy show dev",
            "keyring policy set dev --file p.json --hardened",
            "keyring policy set dev --compatible",
            "appliance status",
            "appliance self-test",
            "store check --state /var/lib/kmsd",
            "store stats",
            "proposal create ExportKeyVersion dev/k1@1 --recipient k.pem",
            "proposal execute proposals/x --out k",
            "key decrypt --in c --out -",
            "key update dev/k1 --label a=b --remove-label c --pkcs11-id 0aff",
            "random dev --bytes 32 --out -",
            "user create users/alice --ssh-key-file k --unix-uid 1000",
            "user grant users/alice --role key-manager --ring dev",
            "user grant users/alice --role auditor --expires 2027-01-02T03:04:05Z",
            "user add-credential users/alice --unix-uid 7",
            "user bindings --over dev/k1",
            "token set-pin dev --role user --pin-file -",
            "proposal create DestroyKeyVersion dev/k1@1 --lifetime 600",
            "proposal approve proposals/x --approver users/alice --signature s",
            "release verify r --log-key k --evidence e",
            "audit export folder",
            "attest verify --kind snp --evidence e --collateral d --at 2026-01-02T03:04:05Z",
            "seal unseal --passphrase-file -",
            "--output json key list dev --filter state=ACTIVE --show-deleted",
        ] {
            let words = std::iter::once("kmsctl").chain(line.split(' '));
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    /// Every line of every help text that shows a command shows one that is taken.
    #[test]
    fn the_examples_of_the_help_read() {
        let mut examples = Vec::new();
        collect(&Arguments::command(), &mut examples);
        assert!(examples.len() > 120, "only {} examples were found", examples.len());
        for words in examples {
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{words:?}: {error}");
            }
        }
    }

    /// The words of each example in the help of `command` and of those below it.
    fn collect(command: &clap::Command, examples: &mut Vec<Vec<String>>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        // Where help is wrapped, a longer line would be no command any more.
        let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{}: {long:?}", command.get_name());
        let help = help.replace("\\\n", " ");
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            // What stands before or behind a pipe is another program's, and so are redirections.
            let pipes = line.split(" # ").next().unwrap_or_default().split('|');
            let shown = pipes.map(str::trim).filter(|part| part.starts_with("kmsctl "));
            examples.extend(shown.map(|part| words(part.split(" > ").next().unwrap_or_default())));
        }
        command.get_subcommands().for_each(|below| collect(below, examples));
    }

    /// The words of a line; single quotes keep spaces together.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let split = parts.flat_map(|(at, part)| match at % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        });
        split.collect()
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "key sign dev/k1 --out s",
            "key sign dev/k1 --message-file m --digest-file d --out s",
            "key create dev/k1 --algorithm ROT13",
            "key create dev/k1 --algorithm AES_256 --mechanism ROT13",
            "key create dev/k1 --algorithm AES_256 --rotate-every 1fortnight",
            "key create dev/k1 --algorithm AES_256 --rotate-after-uses 0",
            "key import dev/t --algorithm RSA_2048",
            "key export dev/k1@1",
            "key export dev/k1@1 --private-key a --public-key b",
            "key export dev/k1@1 --private-key a --proposal proposals/x",
            "key csr dev/t --out t.csr",
            "key data-key dev/a --bytes 15 --out w",
            "key unwrap dev/k2 --algorithm AES_256 --in w --iv 00",
            "key agree dev/x dev/n --algorithm AES_128 --peer p --salt 00",
            "key digest dev --hash MD5 --in f",
            "keyring policy set dev",
            "ring create dev --compatible --hardened",
            "key schedule-destroy dev/k1@1 --in 30d --at 2027-01-01T00:00:00Z",
            "key compromise dev/k1@1 --reason BOREDOM",
            "key set-certificate dev/k1@1",
            "key update dev/k1 --no-rotation --rotate-every 1d",
            "key create dev/k1 --algorithm GENERIC_SECRET --label novalue",
            "token set-pin dev --role user --pin 1234",
            "random dev --bytes 0 --out -",
            "user grant alice --role king",
            "user grant users/alice --role auditor --ring dev --key dev/k1",
            "user add-credential users/alice",
            "user add-credential users/alice --unix-uid 7 --certificate c",
            "user revoke-credential users/alice/credentials/x",
            "attest verify --kind snp --evidence e --collateral d --at yesterday",
        ] {
            let words = std::iter::once("kmsctl").chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_err(), "{line}");
        }
    }
}
