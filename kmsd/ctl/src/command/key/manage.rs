//! Making, describing and turning keys.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use kms_client::v1;
use kms_core::algorithm::Algorithm;
use serde_json::json;

use crate::command::{PAGE_SIZE, all_pages, policy, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Key name, for example dev/k1.
    name: String,
    /// What it is.
    #[arg(long, value_parser = PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::as_str)))]
    algorithm: String,
    /// What it may be used for; without it, all that the algorithm offers but RELEASE. May be
    /// repeated.
    #[arg(long, value_parser = PossibleValuesParser::new(USAGES))]
    usage: Vec<String>,
    /// Note of your own. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = input::label)]
    label: Vec<(String, String)>,
    /// JSON file of what a workload must prove to receive or use the key. For ever.
    #[arg(long, value_name = "FILE")]
    release_requirement: Option<PathBuf>,
    /// JSON file of the quorum that guards the key. For ever.
    #[arg(long, value_name = "FILE")]
    quorum: Option<PathBuf>,
    /// The AI model that the key protects. For ever.
    #[arg(long)]
    model: Option<String>,
    /// The dataset that the key protects. For ever.
    #[arg(long)]
    dataset: Option<String>,
    /// Leave the first version PRE_ACTIVE.
    #[arg(long)]
    pre_active: bool,
}

impl Create {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let pre_active = self.pre_active;
        let key = Some(self.key()?);
        let request = v1::CreateKeyRequest { key, pre_active, request_id: input::request_id()? };
        let client = connection.open().await?;
        let answer = client.retry(async || client.keys().create_key(request.clone()).await).await?;
        let key = view::key(required(answer.key)?);
        let version = view::key_version(required(answer.version)?);
        let report = Report::fields(key)
            .with("version", version["name"].clone())
            .with("state", version["state"].clone())
            .with("public_key", version["public_key"].clone());
        Ok(view::audited(report, answer.audit))
    }

    fn key(self) -> Result<v1::Key, Failure> {
        let requirement = self.release_requirement.as_deref();
        let usage = |name: &String| {
            v1::Usage::from_str_name(&format!("USAGE_{name}"))
                .map(i32::from)
                .ok_or_else(|| Failure::input(name, "unknown usage"))
        };
        let algorithm = v1::Algorithm::from_str_name(&format!("ALGORITHM_{}", self.algorithm))
            .ok_or_else(|| Failure::input(&self.algorithm, "unknown algorithm"))?;
        Ok(v1::Key {
            name: self.name,
            algorithm: algorithm.into(),
            usages: self.usage.iter().map(usage).collect::<Result<_, _>>()?,
            labels: self.label.into_iter().collect(),
            release_requirement: requirement.map(policy::release_requirement).transpose()?,
            quorum: self.quorum.as_deref().map(policy::quorum).transpose()?,
            model: self.model.unwrap_or_default(),
            dataset: self.dataset.unwrap_or_default(),
            ..Default::default()
        })
    }
}

pub(crate) async fn list(connection: &Connection, parent: String) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let keys = all_pages(async |page_token| {
        let parent = parent.clone();
        let request = v1::ListKeysRequest { parent, page_size: PAGE_SIZE, page_token };
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

pub(crate) async fn rotate(connection: &Connection, parent: String) -> Result<Report, Failure> {
    let request = v1::CreateKeyVersionRequest { parent, request_id: input::request_id()? };
    let client = connection.open().await?;
    let answer =
        client.retry(async || client.keys().create_key_version(request.clone()).await).await?;
    let version = view::key_version(required(answer.version)?);
    Ok(view::audited(Report::fields(version), answer.audit))
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
    let columns = &["name", "state", "algorithm", "create_time", "etag"];
    Ok(Report::rows("versions", columns, versions.into_iter().map(view::key_version).collect()))
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
        let Self { name: _, label, remove_label, pkcs11_label, pkcs11_id } = self;
        let mut fields = Vec::new();
        if !label.is_empty() || !remove_label.is_empty() {
            fields.push("labels".to_owned());
        }
        for name in remove_label {
            if key.labels.remove(&name).is_none() {
                return Err(Failure::input(name, "the key has no such label"));
            }
        }
        key.labels.extend(label);
        if let Some(label) = pkcs11_label {
            fields.push("pkcs11_label".to_owned());
            key.pkcs11_label = label;
        }
        if let Some(HexBytes(id)) = pkcs11_id {
            fields.push("pkcs11_id".to_owned());
            key.pkcs11_id = id;
        }
        if fields.is_empty() {
            return Err(Failure::Input(
                "nothing to change: give --label, --remove-label, --pkcs11-label or --pkcs11-id"
                    .to_owned(),
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
        let pem = view::public_key_pem(&answer.public_key);
        input::write(&out, pem.as_bytes(), Secrecy::Public)?;
        if input::is_dash(&out) {
            return Ok(Report::nothing());
        }
        let written = json!({ "name": answer.name, "out": out.display().to_string() });
        Ok(view::audited(Report::fields(written), answer.audit))
    }
}

const USAGES: [&str; 7] =
    ["DECRYPT", "ENCRYPT", "MAC_SIGN", "MAC_VERIFY", "RELEASE", "SIGN", "VERIFY"];
pub(crate) const CREATE_HELP: &str = "\
Examples:
  kmsctl key create dev/k1 --algorithm EC_SIGN_P256_SHA256 --label team=web
  kmsctl key create dev/model --algorithm AES_256_GCM --usage RELEASE \\
    --release-requirement release.json --model llama
  kmsctl key create prod/ca --algorithm RSA_SIGN_PSS_3072_SHA256 --quorum quorum.json

A release requirement says which evidence a workload must show, and what its policy demands:
  {\"kinds\": [\"snp\"], \"may_be_unestablished\": [\"revocation\"], \"policy_file\": \"release.rego\"}
For quorum files see kmsctl keyring create --help.";
pub(crate) const UPDATE_HELP: &str = "\
Examples:
  kmsctl key update dev/k1 --label team=web --remove-label owner
  kmsctl key update dev/k1 --pkcs11-label signing --pkcs11-id 01";

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
    fn every_usage_and_algorithm_has_a_name_on_the_wire() {
        for usage in USAGES {
            assert!(v1::Usage::from_str_name(&format!("USAGE_{usage}")).is_some(), "{usage}");
        }
        for algorithm in Algorithm::ALL {
            let name = format!("ALGORITHM_{algorithm}");
            assert!(v1::Algorithm::from_str_name(&name).is_some(), "{name}");
        }
    }
}
