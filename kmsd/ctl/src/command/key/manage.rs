//! Making, describing and turning keys.

use std::path::PathBuf;

use clap::Args;
use kms_client::v1;
use kms_core::algorithm::{Algorithm, KeyKind};
use kms_core::id::Timestamp;
use kms_core::mechanism::Mechanism;
use serde_json::json;

use super::shape::{self, Rotation, Shape};
use crate::command::{PAGE_SIZE, all_pages, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Key name, for example dev/k1.
    name: String,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    beginning: Beginning,
}

/// How a version begins its life.
#[derive(Args, Debug)]
pub(crate) struct Beginning {
    /// Leave the version PRE_ACTIVE.
    #[arg(long)]
    pre_active: bool,
    /// When it becomes ACTIVE; it is PRE_ACTIVE until then.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    activate_at: Option<Timestamp>,
    /// When it becomes DEACTIVATED.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    deactivate_at: Option<Timestamp>,
    /// Leave it PENDING_IMPORT, without material; key import brings it.
    #[arg(long)]
    pending_import: bool,
}

impl Create {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, shape, beginning } = self;
        let Beginning { pre_active, activate_at, deactivate_at, pending_import } = beginning;
        let request = v1::CreateKeyRequest {
            key: Some(shape.key(name)?),
            pre_active,
            request_id: input::request_id()?,
            activate_time: activate_at.map(input::wire_time),
            deactivate_time: deactivate_at.map(input::wire_time),
            pending_import,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.keys().create_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

/// A key that was just made, with its first version.
pub(crate) fn made(
    key: Option<v1::Key>,
    version: Option<v1::KeyVersion>,
    audit: Option<v1::AuditReference>,
) -> Result<Report, Failure> {
    let key = view::key(required(key)?);
    let version = view::key_version(required(version)?);
    let report = Report::fields(key)
        .with("version", version["name"].clone())
        .with("state", version["state"].clone())
        .with("origin", version["origin"].clone())
        .with("public_key", version["public_key"].clone());
    Ok(view::audited(report, audit))
}

/// What keys can be and what they can be used for, by the rules that the daemon has, too.
pub(crate) fn algorithms(only: Option<&str>) -> Report {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL.iter().filter(|a| only.is_none_or(|name| a.as_str() == name)) {
        let kind = match algorithm.kind() {
            KeyKind::KeyPair => "KEY_PAIR",
            KeyKind::SecretKey => "SECRET_KEY",
            _ => "OPAQUE_SECRET",
        };
        let preferred = algorithm.default_mechanism();
        let row = |mechanism: Option<&Mechanism>| {
            let usages = mechanism.map_or(&[][..], |mechanism| mechanism.usages());
            json!({
                "algorithm": algorithm.as_str(),
                "kind": kind,
                "mechanism": mechanism.map(|mechanism| mechanism.as_str()),
                "preferred": mechanism.is_some() && mechanism.copied() == preferred,
                "usages": usages.iter().map(|usage| usage.as_str()).collect::<Vec<_>>(),
                "needs_compatible_ring": mechanism.is_some_and(|m| m.needs_compatible_ring()),
            })
        };
        match algorithm.mechanisms() {
            [] => rows.push(row(None)),
            mechanisms => rows.extend(mechanisms.iter().map(|mechanism| row(Some(mechanism)))),
        }
    }
    let columns =
        &["algorithm", "kind", "mechanism", "preferred", "usages", "needs_compatible_ring"];
    Report::rows("algorithms", columns, rows)
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Ring name.
    ring: String,
    /// Which keys: terms joined by AND, for example 'labels.env = "prod" AND algorithm = AES_256'.
    #[arg(long, value_name = "TERMS", default_value = "", hide_default_value = true)]
    filter: String,
    /// Show deleted keys, too.
    #[arg(long)]
    show_deleted: bool,
}

impl List {
    /// The keys of `ring` that fit `filter`.
    pub(crate) const fn only(ring: String, filter: String) -> Self {
        Self { ring, filter, show_deleted: false }
    }
}

pub(crate) async fn list(connection: &Connection, list: List) -> Result<Report, Failure> {
    let List { ring: parent, filter, show_deleted } = list;
    let client = connection.open().await?;
    let keys = all_pages(async |page_token| {
        let request = v1::ListKeysRequest {
            parent: parent.clone(),
            page_size: PAGE_SIZE,
            page_token,
            filter: filter.clone(),
            show_deleted,
        };
        let answer = client.retry(async || client.keys().list_keys(request.clone()).await).await?;
        Ok((answer.keys, answer.next_page_token))
    })
    .await?;
    let columns = &["name", "algorithm", "primary_version", "usages", "labels"];
    Ok(Report::rows("keys", columns, keys.into_iter().map(view::key).collect()))
}

pub(crate) async fn show(connection: &Connection, name: String) -> Result<Report, Failure> {
    let request = v1::GetKeyRequest { name };
    let client = connection.open().await?;
    let answer = client.retry(async || client.keys().get_key(request.clone()).await).await?;
    Ok(view::audited(Report::fields(view::key(required(answer.key)?)), answer.audit))
}

#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// Key name.
    name: String,
    #[command(flatten)]
    beginning: Beginning,
}

impl Rotate {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, beginning } = self;
        let Beginning { pre_active, activate_at, deactivate_at, pending_import } = beginning;
        let request = v1::CreateKeyVersionRequest {
            parent: name,
            request_id: input::request_id()?,
            pre_active,
            activate_time: activate_at.map(input::wire_time),
            deactivate_time: deactivate_at.map(input::wire_time),
            pending_import,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.keys().create_key_version(request.clone()).await).await?;
        let version = view::key_version(required(answer.version)?);
        Ok(view::audited(Report::fields(version), answer.audit))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Key name.
    name: String,
    /// Only if the key still has this etag, as show shows it.
    #[arg(long)]
    etag: Option<String>,
}

impl Delete {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, etag } = self;
        let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
        let request = v1::DeleteKeyRequest { name, etag, request_id };
        let client = connection.open().await?;
        let answer = client.retry(async || client.keys().delete_key(request.clone()).await).await?;
        Ok(view::audited(Report::fields(view::key(required(answer.key)?)), answer.audit))
    }
}

/// Trusts a key to wrap others, or ceases to.
pub(crate) async fn set_trusted(
    connection: &Connection,
    name: String,
    trusted: bool,
) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let get = v1::GetKeyRequest { name: name.clone() };
    let found = client.retry(async || client.keys().get_key(get.clone()).await).await?;
    // What was looked at is what is trusted.
    let etag = required(found.key)?.etag;
    let request =
        v1::SetKeyTrustedRequest { name, etag, trusted, request_id: input::request_id()? };
    let answer =
        client.retry(async || client.keys().set_key_trusted(request.clone()).await).await?;
    Ok(view::audited(Report::fields(view::key(required(answer.key)?)), answer.audit))
}

pub(crate) async fn versions(connection: &Connection, parent: String) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let versions = all_pages(async |page_token| {
        let parent = parent.clone();
        let request = v1::ListKeyVersionsRequest { parent, page_size: PAGE_SIZE, page_token };
        let answer =
            client.retry(async || client.keys().list_key_versions(request.clone()).await).await?;
        Ok((answer.versions, answer.next_page_token))
    })
    .await?;
    let columns = &["name", "state", "enabled", "origin", "create_time", "etag"];
    Ok(Report::rows("versions", columns, versions.into_iter().map(view::key_version).collect()))
}

/// What has happened to a key, newest first.
pub(crate) async fn history(connection: &Connection, parent: String) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let events = all_pages(async |page_token| {
        let parent = parent.clone();
        let request = v1::ListKeyHistoryRequest { parent, page_size: PAGE_SIZE, page_token };
        let answer =
            client.retry(async || client.keys().list_key_history(request.clone()).await).await?;
        Ok((answer.events, answer.next_page_token))
    })
    .await?;
    let columns = &["time", "actor", "action", "version", "from_state", "to_state"];
    Ok(Report::rows("events", columns, events.into_iter().map(view::key_event).collect()))
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// Key name.
    name: String,
    /// Set a label. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = input::label)]
    label: Vec<(String, String)>,
    /// Remove a label. May be repeated.
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    /// CKA_LABEL.
    #[arg(long, value_name = "TEXT")]
    pkcs11_label: Option<String>,
    /// CKA_ID.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    pkcs11_id: Option<HexBytes>,
    /// The usages that it keeps; the others go for ever. May be repeated.
    #[arg(long, value_name = "USAGE", value_parser = shape::usage_names())]
    usage: Vec<String>,
    /// The mechanisms that it keeps; the others go for ever. May be repeated.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    mechanism: Vec<String>,
    /// Nobody hands it out any more, for ever.
    #[arg(long)]
    not_exportable: bool,
    /// Each use is recorded by a leaf of its own from now on, for ever.
    #[arg(long)]
    audit_each_use: bool,
    /// Lowest version that may protect (sign, encrypt, wrap and so on). Only rises.
    #[arg(long, value_name = "N")]
    protect_floor: Option<u32>,
    /// Lowest version that may process (verify, decrypt, unwrap and so on). Only rises.
    #[arg(long, value_name = "N")]
    process_floor: Option<u32>,
    /// The version that new signatures and ciphertexts use.
    #[arg(long, value_name = "N")]
    primary: Option<u32>,
    #[command(flatten)]
    rotation: Rotation,
    /// Make no version without being asked.
    #[arg(long, conflicts_with_all = ["rotate_every", "rotate_after_uses"])]
    no_rotation: bool,
}

impl Update {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let client = connection.open().await?;
        let get = v1::GetKeyRequest { name: self.name.clone() };
        let found = client.retry(async || client.keys().get_key(get.clone()).await).await?;
        // The etag that was read goes back with the change, so that no other change is undone.
        let (key, update_fields) = self.apply(required(found.key)?)?;
        let request_id = input::request_id()?;
        let request = v1::UpdateKeyRequest { key: Some(key), update_fields, request_id };
        let answer = client.retry(async || client.keys().update_key(request.clone()).await).await?;
        Ok(view::audited(Report::fields(view::key(required(answer.key)?)), answer.audit))
    }

    fn apply(self, mut key: v1::Key) -> Result<(v1::Key, Vec<String>), Failure> {
        let Self {
            name: _,
            label,
            remove_label,
            pkcs11_label,
            pkcs11_id,
            usage,
            mechanism,
            not_exportable,
            audit_each_use,
            protect_floor,
            process_floor,
            primary,
            rotation,
            no_rotation,
        } = self;
        let mut fields = Vec::new();
        let mut changed = |field: &str| fields.push(field.to_owned());
        if !label.is_empty() || !remove_label.is_empty() {
            changed("labels");
        }
        for name in remove_label {
            if key.labels.remove(&name).is_none() {
                return Err(Failure::input(name, "the key has no such label"));
            }
        }
        key.labels.extend(label);
        if let Some(label) = pkcs11_label {
            changed("pkcs11_label");
            key.pkcs11_label = label;
        }
        if let Some(HexBytes(id)) = pkcs11_id {
            changed("pkcs11_id");
            key.pkcs11_id = id;
        }
        if !usage.is_empty() {
            changed("usages");
            key.usages = shape::wire_usages(&usage)?;
        }
        if !mechanism.is_empty() {
            changed("mechanisms");
            key.mechanisms = shape::wire_mechanisms(&mechanism)?;
        }
        if not_exportable {
            changed("exportable");
            key.exportable = false;
        }
        if audit_each_use {
            changed("audit_each_use");
            key.audit_each_use = true;
        }
        if let Some(floor) = protect_floor {
            changed("protect_floor");
            key.protect_floor = floor;
        }
        if let Some(floor) = process_floor {
            changed("process_floor");
            key.process_floor = floor;
        }
        if let Some(number) = primary {
            changed("primary_version");
            key.primary_version = number;
        }
        let plan = rotation.wire();
        if plan.is_some() || no_rotation {
            changed("rotation");
            key.rotation = plan;
        }
        if fields.is_empty() {
            return Err(Failure::Input(
                "nothing to change: kmsctl key update --help says what can be".to_owned(),
            ));
        }
        Ok((key, fields))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Public {
    /// Version name; a key name means its primary version.
    name: String,
    /// Where the key is written, in PEM.
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    out: PathBuf,
}

impl Public {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, out } = self;
        let request = v1::GetPublicKeyRequest { name };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.keys().get_public_key(request.clone()).await).await?;
        if crc32c::crc32c(&answer.public_key) != answer.public_key_crc32c {
            return Err(Failure::Answer("the public key was damaged on the way"));
        }
        let pem = view::public_key_pem(answer.algorithm(), &answer.public_key);
        input::write(&out, pem.as_bytes(), Secrecy::Public)?;
        if input::is_dash(&out) {
            return Ok(Report::nothing());
        }
        let written = json!({ "name": answer.name, "out": out.display().to_string() });
        Ok(view::audited(Report::fields(written), answer.audit))
    }
}

pub(crate) const CREATE_HELP: &str = "\
Examples:
  kmsctl key create dev/k1 --algorithm EC_P256 --label team=web
  kmsctl key create dev/model --algorithm AES_256 --usage RELEASE \\
    --release-requirement release.json --model llama
  kmsctl key create prod/ca --algorithm RSA_3072 --mechanism RSA_PKCS1_SHA256 --quorum quorum.json
  kmsctl key create dev/wrap --algorithm AES_256 --mechanism AES_KWP --rotate-every 90d
  kmsctl key create dev/next --algorithm ML_DSA_65 --activate-at 2027-01-01T00:00:00Z

A release requirement says which evidence a workload must show, and what its policy demands:
  {\"kinds\": [\"snp\"], \"may_be_unestablished\": [\"revocation\"], \"policy_file\": \"release.rego\"}
For quorum files see kmsctl keyring create --help.";
pub(crate) const SHOW_HELP: &str = "\
Examples:
  kmsctl key show dev/k1
  kmsctl key versions dev/k1
  kmsctl --output json key versions dev/k1";
pub(crate) const PUBLIC_HELP: &str = "\
Examples:
  kmsctl key public dev/k1 --out k1.pem
  kmsctl key public dev/k1@1 | openssl pkey -pubin -noout -text

The public key of an X_WING key stands in the PEM as raw bytes, under a label of its own: it has no
other standard form yet.";
pub(crate) const HISTORY_HELP: &str = "\
Uses are not part of it; they are in the log: kmsctl audit tail.

Example:
  kmsctl key history dev/k1";
pub(crate) const UPDATE_HELP: &str = "\
Examples:
  kmsctl key update dev/k1 --label team=web --remove-label owner
  kmsctl key update dev/k1 --pkcs11-label signing --pkcs11-id 01
  kmsctl key update dev/k1 --usage VERIFY --protect-floor 2 --rotate-every 90d

Usages and mechanisms are only lost, what is not exportable stays so, floors only rise.";
pub(crate) const LIST_HELP: &str = "\
A term compares algorithm, usages, mechanisms, state (of the primary version), exportable, model,
dataset, name (a prefix ends with *), pkcs11_label or labels.KEY with = or !=.

Examples:
  kmsctl key list dev
  kmsctl key list dev --filter 'labels.env = \"prod\" AND algorithm = AES_256'";
pub(crate) const ROTATE_HELP: &str = "\
Examples:
  kmsctl key rotate dev/k1
  kmsctl key rotate dev/k1 --activate-at 2027-01-01T00:00:00Z";
pub(crate) const DELETE_HELP: &str = "\
All its versions must be destroyed first. The name is never used again.

Example:
  kmsctl key delete dev/k1";
pub(crate) const TRUST_HELP: &str = "\
In a hardened ring, only trusted keys wrap others.

Examples:
  kmsctl key trust dev/wrap
  kmsctl key untrust dev/wrap";
pub(crate) const ALGORITHMS_HELP: &str = "\
Needs no connection. The preferred mechanism is what a key gets that is made without --mechanism.

Examples:
  kmsctl key algorithms
  kmsctl key algorithms RSA_3072";

#[cfg(test)]
mod tests {
    use super::*;

    fn update() -> Update {
        Update {
            name: "dev/k1".into(),
            label: Vec::new(),
            remove_label: Vec::new(),
            pkcs11_label: None,
            pkcs11_id: None,
            usage: Vec::new(),
            mechanism: Vec::new(),
            not_exportable: false,
            audit_each_use: false,
            protect_floor: None,
            process_floor: None,
            primary: None,
            rotation: Rotation::default(),
            no_rotation: false,
        }
    }

    #[test]
    fn an_update_names_exactly_what_changes() {
        let key = v1::Key {
            labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
            etag: "e".into(),
            ..Default::default()
        };
        let change = Update {
            label: vec![("a".into(), "9".into())],
            remove_label: vec!["b".into()],
            pkcs11_id: Some(HexBytes(vec![1])),
            ..update()
        };
        let (changed, fields) = change.apply(key.clone()).unwrap();
        assert_eq!(fields, ["labels", "pkcs11_id"]);
        assert_eq!(changed.labels, [("a".to_owned(), "9".to_owned())].into());
        assert_eq!((changed.etag.as_str(), changed.pkcs11_id.as_slice()), ("e", &[1][..]));
        let missing = Update { remove_label: vec!["c".into()], ..update() };
        assert_eq!(missing.apply(key.clone()).unwrap_err().exit_code(), 2);
        assert_eq!(update().apply(key).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_update_tightens_and_turns() {
        let key = v1::Key { exportable: true, rotation: None, ..Default::default() };
        let change = Update {
            usage: vec!["VERIFY".into()],
            mechanism: vec!["ECDSA_SHA256".into()],
            not_exportable: true,
            audit_each_use: true,
            protect_floor: Some(2),
            process_floor: Some(1),
            primary: Some(3),
            rotation: Rotation { rotate_every: None, rotate_after_uses: Some(10) },
            ..update()
        };
        let (changed, fields) = change.apply(key.clone()).unwrap();
        let expected = [
            "usages",
            "mechanisms",
            "exportable",
            "audit_each_use",
            "protect_floor",
            "process_floor",
            "primary_version",
            "rotation",
        ];
        assert_eq!(fields, expected);
        assert_eq!(changed.usages, [i32::from(v1::Usage::Verify)]);
        assert!(!changed.exportable && changed.audit_each_use && changed.rotation.is_some());
        let stop = Update { no_rotation: true, ..update() };
        let (stopped, fields) = stop.apply(changed).unwrap();
        assert_eq!((stopped.rotation, fields), (None, vec!["rotation".to_owned()]));
    }

    #[test]
    fn every_algorithm_is_listed_and_one_alone_if_asked() {
        let all = algorithms(None).to_json();
        for algorithm in Algorithm::ALL {
            let listed = all["algorithms"].as_array().unwrap().iter();
            assert!(
                listed.clone().any(|row| row["algorithm"] == algorithm.as_str()),
                "{algorithm}"
            );
        }
        let one = algorithms(Some("ED25519")).to_json();
        assert_eq!(one["algorithms"].as_array().unwrap().len(), 1);
        assert_eq!(one["algorithms"][0]["usages"], json!(["SIGN", "VERIFY"]));
    }
}
