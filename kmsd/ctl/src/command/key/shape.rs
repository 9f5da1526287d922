//! What a new key is to be: the flags that every command which makes one has in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use kms_client::v1;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::{Hash, Mechanism};

use crate::command::policy;
use crate::failure::Failure;
use crate::input;

/// What a new key is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shape {
    /// What it is; key algorithms lists them.
    #[arg(long, value_name = "ALGORITHM", value_parser = algorithm_names())]
    pub(crate) algorithm: String,
    /// Length of a GENERIC_SECRET in bytes, 14 to 512; without it, 32.
    #[arg(long, value_name = "N")]
    pub(crate) length_bytes: Option<u32>,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// What a new key may be used for, and what is said about it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Limits {
    /// What it may be used with; without it, what the algorithm prefers. May be repeated.
    #[arg(long, value_name = "MECHANISM", value_parser = mechanism_names())]
    pub(crate) mechanism: Vec<String>,
    /// What it may be used for; without it, all that its mechanisms offer, and neither EXPORT nor
    /// RELEASE. May be repeated.
    #[arg(long, value_name = "USAGE", value_parser = usage_names())]
    pub(crate) usage: Vec<String>,
    /// Let a quorum hand it out, wrapped. Can be taken back later, never given.
    #[arg(long)]
    pub(crate) exportable: bool,
    /// Note of your own. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = input::label)]
    pub(crate) label: Vec<(String, String)>,
    /// JSON file of what a workload must prove to receive or use the key. For ever.
    #[arg(long, value_name = "FILE")]
    pub(crate) release_requirement: Option<PathBuf>,
    /// JSON file of the quorum that guards the key. For ever.
    #[arg(long, value_name = "FILE")]
    pub(crate) quorum: Option<PathBuf>,
    /// The AI model that the key protects. For ever.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The dataset that the key protects. For ever.
    #[arg(long)]
    pub(crate) dataset: Option<String>,
    /// Record each use by a leaf of its own, and none on a usage lease. For ever.
    #[arg(long)]
    pub(crate) audit_each_use: bool,
    #[command(flatten)]
    pub(crate) rotation: Rotation,
}

/// Rotation that nobody has to remember.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Rotation {
    /// Make the next version after so long, for example 90d.
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    pub(crate) rotate_every: Option<Duration>,
    /// Make the next version after so many protections with one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rotate_after_uses: Option<u64>,
}

impl Shape {
    /// The key of that name.
    pub(crate) fn key(self, name: String) -> Result<v1::Key, Failure> {
        let Self { algorithm, length_bytes, limits } = self;
        let algorithm = wire_algorithm(&algorithm)?;
        let key = limits.key(name)?;
        Ok(v1::Key {
            algorithm: algorithm.into(),
            length_bytes: length_bytes.unwrap_or_default(),
            ..key
        })
    }
}

impl Limits {
    /// Whether anything is said.
    pub(crate) fn is_some(&self) -> bool {
        let Self {
            mechanism,
            usage,
            exportable,
            label,
            release_requirement,
            quorum,
            model,
            dataset,
            audit_each_use,
            rotation: Rotation { rotate_every, rotate_after_uses },
        } = self;
        let lists = [mechanism, usage].iter().any(|list| !list.is_empty()) || !label.is_empty();
        let files = release_requirement.is_some() || quorum.is_some();
        let texts = model.is_some() || dataset.is_some();
        lists
            || files
            || texts
            || *exportable
            || *audit_each_use
            || rotate_every.is_some()
            || rotate_after_uses.is_some()
    }

    /// The key of that name, whatever it is.
    pub(crate) fn key(self, name: String) -> Result<v1::Key, Failure> {
        let requirement = self.release_requirement.as_deref();
        Ok(v1::Key {
            name,
            usages: wire_usages(&self.usage)?,
            mechanisms: wire_mechanisms(&self.mechanism)?,
            exportable: self.exportable,
            labels: self.label.into_iter().collect(),
            release_requirement: requirement.map(policy::release_requirement).transpose()?,
            quorum: self.quorum.as_deref().map(policy::quorum).transpose()?,
            model: self.model.unwrap_or_default(),
            dataset: self.dataset.unwrap_or_default(),
            audit_each_use: self.audit_each_use,
            rotation: self.rotation.wire(),
            ..Default::default()
        })
    }
}

impl Rotation {
    /// As the contract has it; nothing when nothing is asked for.
    pub(crate) fn wire(&self) -> Option<v1::Rotation> {
        let Self { rotate_every, rotate_after_uses } = *self;
        let rotation = v1::Rotation {
            period: rotate_every.map(input::wire_duration),
            next_rotation_time: None,
            uses_max: rotate_after_uses.unwrap_or_default(),
        };
        (rotate_every.is_some() || rotate_after_uses.is_some()).then_some(rotation)
    }
}

/// The names that `--algorithm` takes.
pub(crate) fn algorithm_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()))
}

/// The names that `--mechanism` takes.
pub(crate) fn mechanism_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Mechanism::ALL.iter().map(|mechanism| mechanism.as_str()))
}

/// The names that `--usage` takes.
pub(crate) fn usage_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Usage::ALL.map(Usage::as_str))
}

/// An algorithm as the contract has it.
pub(crate) fn wire_algorithm(name: &str) -> Result<v1::Algorithm, Failure> {
    v1::Algorithm::from_str_name(&format!("ALGORITHM_{name}")).ok_or_else(|| {
        Failure::input(name, "unknown algorithm; `kmsctl key algorithms` lists them")
    })
}

/// A mechanism as the contract has it; none is the one that the key prefers.
pub(crate) fn wire_mechanism(name: Option<&str>) -> Result<i32, Failure> {
    let Some(name) = name else { return Ok(v1::Mechanism::Unspecified.into()) };
    v1::Mechanism::from_str_name(&format!("MECHANISM_{name}")).map(i32::from).ok_or_else(|| {
        Failure::input(name, "unknown mechanism; `kmsctl key algorithms` lists them")
    })
}

/// Mechanisms as the contract has them.
pub(crate) fn wire_mechanisms(names: &[String]) -> Result<Vec<i32>, Failure> {
    names.iter().map(|name| wire_mechanism(Some(name))).collect()
}

/// Usages as the contract has them.
pub(crate) fn wire_usages(names: &[String]) -> Result<Vec<i32>, Failure> {
    let usage = |name: &String| {
        v1::Usage::from_str_name(&format!("USAGE_{name}"))
            .map(i32::from)
            .ok_or_else(|| Failure::input(name, "unknown usage"))
    };
    names.iter().map(usage).collect()
}

/// The names that `--hash` takes.
pub(crate) fn hash_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Hash::ALL.map(Hash::as_str))
}

/// A hash function as the contract has it.
pub(crate) fn wire_hash(name: &str) -> Result<i32, Failure> {
    v1::Hash::from_str_name(&format!("HASH_{name}"))
        .map(i32::from)
        .ok_or_else(|| Failure::input(name, "unknown hash function"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_rules_has_one_on_the_wire() {
        for usage in Usage::ALL {
            assert_eq!(wire_usages(&[usage.to_string()]).unwrap().len(), 1);
        }
        for algorithm in Algorithm::ALL {
            assert!(wire_algorithm(algorithm.as_str()).is_ok(), "{algorithm}");
        }
        for mechanism in Mechanism::ALL {
            assert!(wire_mechanism(Some(mechanism.as_str())).is_ok(), "{mechanism}");
        }
        for hash in Hash::ALL {
            assert!(wire_hash(hash.as_str()).is_ok(), "{hash}");
        }
        assert_eq!(wire_mechanism(Some("ROT13")).unwrap_err().exit_code(), 2);
        assert_eq!(wire_mechanism(None).unwrap(), 0);
    }

    #[test]
    fn what_is_not_asked_for_is_not_set() {
        let key = Limits::default().key("dev/k".into()).unwrap();
        assert_eq!(key, v1::Key { name: "dev/k".into(), ..Default::default() });
        assert!(!Limits::default().is_some());
        assert!(Limits { exportable: true, ..Default::default() }.is_some());
        let rotation = Rotation { rotate_every: None, rotate_after_uses: Some(9) }.wire().unwrap();
        assert_eq!((rotation.period, rotation.uses_max), (None, 9));
        let limits = Limits {
            exportable: true,
            rotation: Rotation {
                rotate_every: Some(Duration::from_secs(3600)),
                rotate_after_uses: None,
            },
            ..Default::default()
        };
        let key = limits.key("dev/k".into()).unwrap();
        assert!(key.exportable);
        assert_eq!(key.rotation.unwrap().period.unwrap().seconds, 3600);
    }
}
