//! What is measured, beside what, and which ratios we want to reach.

use crate::measure::Sample;
use crate::primitive::Primitive;

/// One case. The order is that of a round and of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Case {
    Raw(Primitive),
    Provider(Primitive),
    RawSync,
    RawSyncInPlace,
    Unix1,
    Unix16,
    Unix128,
    Tls128,
    TlsBatch32,
    Stream64,
    OursSign1,
    SoftHsmSign1,
    OursSign2,
    SoftHsmSign2,
    OursCreate,
    SoftHsmCreate,
    OursEncrypt,
    SoftHsmEncrypt,
}

/// One figure of a case over the same figure of its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub(crate) kind: Kind,
    pub(crate) peer: Case,
    pub(crate) goal: Option<Goal>,
}

/// Which figures are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Operations per second of the daemon's CPU time, over those of the peer's own.
    CpuShare,
    /// Operations per second of this thread's CPU time, over those of the peer's.
    ThreadShare,
    /// Median time of one operation.
    Latency,
    /// Operations per second.
    Rate,
}

/// What we want a ratio to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Case {
    pub(crate) const ALL: [Self; 28] = [
        Self::Raw(Primitive::SignP256),
        Self::Raw(Primitive::SignP384),
        Self::Raw(Primitive::SignRsa2048),
        Self::Raw(Primitive::SignRsa3072),
        Self::Raw(Primitive::Seal),
        Self::Raw(Primitive::Open),
        Self::Provider(Primitive::SignP256),
        Self::Provider(Primitive::SignP384),
        Self::Provider(Primitive::SignRsa2048),
        Self::Provider(Primitive::SignRsa3072),
        Self::Provider(Primitive::Seal),
        Self::Provider(Primitive::Open),
        Self::RawSync,
        Self::RawSyncInPlace,
        Self::Unix1,
        Self::Unix16,
        Self::Unix128,
        Self::Tls128,
        Self::TlsBatch32,
        Self::Stream64,
        Self::OursSign1,
        Self::SoftHsmSign1,
        Self::OursSign2,
        Self::SoftHsmSign2,
        Self::OursCreate,
        Self::SoftHsmCreate,
        Self::OursEncrypt,
        Self::SoftHsmEncrypt,
    ];

    /// Its name in recorded results, which does not change.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw(Primitive::SignP256) => "sign.raw",
            Self::Raw(Primitive::SignP384) => "sign.p384.raw",
            Self::Raw(Primitive::SignRsa2048) => "sign.rsa2048.raw",
            Self::Raw(Primitive::SignRsa3072) => "sign.rsa3072.raw",
            Self::Raw(Primitive::Seal) => "encrypt64k.raw",
            Self::Raw(Primitive::Open) => "decrypt64k.raw",
            Self::Provider(Primitive::SignP256) => "sign.provider",
            Self::Provider(Primitive::SignP384) => "sign.p384.provider",
            Self::Provider(Primitive::SignRsa2048) => "sign.rsa2048.provider",
            Self::Provider(Primitive::SignRsa3072) => "sign.rsa3072.provider",
            Self::Provider(Primitive::Seal) => "encrypt64k.provider",
            Self::Provider(Primitive::Open) => "decrypt64k.provider",
            Self::RawSync => "append600.fdatasync",
            Self::RawSyncInPlace => "inplace600.fdatasync",
            Self::Unix1 => "sign.grpc.unix.1",
            Self::Unix16 => "sign.grpc.unix.16",
            Self::Unix128 => "sign.grpc.unix.128",
            Self::Tls128 => "sign.grpc.mtls.128",
            Self::TlsBatch32 => "sign.grpc.mtls.batch.32",
            Self::Stream64 => "sign.grpc.stream.64",
            Self::OursSign1 => "sign.pkcs11.1",
            Self::SoftHsmSign1 => "sign.softhsm2.1",
            Self::OursSign2 => "sign.pkcs11.2",
            Self::SoftHsmSign2 => "sign.softhsm2.2",
            Self::OursCreate => "create.pkcs11",
            Self::SoftHsmCreate => "create.softhsm2",
            Self::OursEncrypt => "encrypt64k.pkcs11",
            Self::SoftHsmEncrypt => "encrypt64k.softhsm2",
        }
    }

    /// Its name for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Raw(Primitive::SignP256) => "P-256 sign, raw aws-lc-rs",
            Self::Raw(Primitive::SignP384) => "P-384 sign, raw aws-lc-rs",
            Self::Raw(Primitive::SignRsa2048) => "RSA-2048 sign, raw aws-lc-rs",
            Self::Raw(Primitive::SignRsa3072) => "RSA-3072 sign, raw aws-lc-rs",
            Self::Raw(Primitive::Seal) => "AES-256-GCM 64 KiB, raw aws-lc-rs",
            Self::Raw(Primitive::Open) => "AES-256-GCM 64 KiB opened, raw aws-lc-rs",
            Self::Provider(Primitive::SignP256) => "P-256 sign, provider",
            Self::Provider(Primitive::SignP384) => "P-384 sign, provider",
            Self::Provider(Primitive::SignRsa2048) => "RSA-2048 sign, provider",
            Self::Provider(Primitive::SignRsa3072) => "RSA-3072 sign, provider",
            Self::Provider(Primitive::Seal) => "AES-256-GCM 64 KiB, provider",
            Self::Provider(Primitive::Open) => "AES-256-GCM 64 KiB opened, provider",
            Self::RawSync => "append 600 B + fdatasync",
            Self::RawSyncInPlace => "600 B in place + fdatasync",
            Self::Unix1 => "P-256 sign, gRPC unary, Unix, 1 in flight",
            Self::Unix16 => "P-256 sign, gRPC unary, Unix, 16 in flight",
            Self::Unix128 => "P-256 sign, gRPC unary, Unix, 128 in flight",
            Self::Tls128 => "P-256 sign, gRPC unary, mTLS, 128 in flight",
            Self::TlsBatch32 => "P-256 sign, gRPC batches of 32, mTLS, 4 in flight",
            Self::Stream64 => "P-256 sign, gRPC stream, Unix, 64 in flight",
            Self::OursSign1 => "P-256 sign, PKCS#11, kmsd, 1 thread",
            Self::SoftHsmSign1 => "P-256 sign, PKCS#11, SoftHSM2, 1 thread",
            Self::OursSign2 => "P-256 sign, PKCS#11, kmsd, 2 threads",
            Self::SoftHsmSign2 => "P-256 sign, PKCS#11, SoftHSM2, 2 threads",
            Self::OursCreate => "P-256 token key pair, PKCS#11, kmsd",
            Self::SoftHsmCreate => "P-256 token key pair, PKCS#11, SoftHSM2",
            Self::OursEncrypt => "AES-256-GCM 64 KiB, PKCS#11, kmsd",
            Self::SoftHsmEncrypt => "AES-256-GCM 64 KiB, PKCS#11, SoftHSM2",
        }
    }

    /// Its name where it is the peer of a case of the same operation.
    pub(crate) const fn as_peer(self) -> &'static str {
        match self {
            Self::Raw(_) => "raw aws-lc-rs",
            Self::RawSync => "append + fdatasync",
            Self::RawSyncInPlace => "in place + fdatasync",
            Self::SoftHsmSign1
            | Self::SoftHsmSign2
            | Self::SoftHsmCreate
            | Self::SoftHsmEncrypt => "SoftHSM2",
            Self::OursSign1 => "kmsd, 1 thread",
            _ => self.title(),
        }
    }

    /// What its figures are held against. The goals are proposals for a quiet machine of two
    /// cores; the README says where each comes from.
    pub(crate) fn comparisons(self) -> Vec<Comparison> {
        use Goal::{AtLeast, AtMost};
        use Kind::{CpuShare, Latency, Rate, ThreadShare};
        match self {
            Self::Raw(_) | Self::RawSync | Self::RawSyncInPlace => vec![],
            Self::Provider(which) => {
                vec![beside(ThreadShare, Self::Raw(which), Some(AtLeast(0.95)))]
            }
            Self::Unix1 => {
                vec![beside(CpuShare, RAW_SIGN, None), beside(Latency, Self::RawSyncInPlace, None)]
            }
            Self::Unix16 => {
                vec![beside(CpuShare, RAW_SIGN, None), beside(Rate, Self::RawSync, None)]
            }
            Self::Unix128 => vec![
                beside(CpuShare, RAW_SIGN, None),
                beside(Rate, Self::RawSync, Some(AtLeast(8.0))),
            ],
            Self::Tls128 => vec![
                beside(CpuShare, RAW_SIGN, Some(AtLeast(0.3))),
                beside(Rate, Self::RawSync, None),
            ],
            Self::TlsBatch32 => vec![
                beside(CpuShare, RAW_SIGN, Some(AtLeast(0.7))),
                beside(Rate, Self::RawSync, None),
            ],
            Self::Stream64 => vec![
                beside(CpuShare, RAW_SIGN, Some(AtLeast(0.7))),
                beside(Rate, Self::RawSync, None),
            ],
            Self::OursSign1 => vec![
                beside(CpuShare, RAW_SIGN, None),
                beside(Latency, Self::SoftHsmSign1, Some(AtMost(1.0))),
                beside(Latency, Self::RawSyncInPlace, None),
            ],
            Self::SoftHsmSign1 => vec![beside(Rate, RAW_SIGN, None)],
            Self::OursSign2 => vec![
                beside(Rate, Self::SoftHsmSign2, None),
                beside(Rate, Self::OursSign1, Some(AtLeast(1.7))),
            ],
            Self::SoftHsmSign2 => vec![beside(Rate, RAW_SIGN, None)],
            Self::OursCreate => vec![
                beside(Latency, Self::SoftHsmCreate, Some(AtMost(0.1))),
                beside(Latency, Self::RawSync, Some(AtMost(4.0))),
            ],
            Self::SoftHsmCreate => vec![beside(Latency, Self::RawSync, None)],
            Self::OursEncrypt => vec![
                beside(CpuShare, Self::Raw(Primitive::Seal), None),
                beside(Latency, Self::SoftHsmEncrypt, None),
            ],
            Self::SoftHsmEncrypt => vec![beside(Rate, Self::Raw(Primitive::Seal), None)],
        }
    }
}

/// What signatures are held against.
pub(crate) const RAW_SIGN: Case = Case::Raw(Primitive::SignP256);

const fn beside(kind: Kind, peer: Case, goal: Option<Goal>) -> Comparison {
    Comparison { kind, peer, goal }
}

impl Kind {
    /// The ratio of `own` to `peer`; none where one of them was not measured.
    pub(crate) fn ratio(self, own: &Sample, peer: &Sample) -> Option<f64> {
        match self {
            Self::CpuShare => Some(peer.own_cpu_us / own.daemon_cpu_us?),
            Self::ThreadShare => Some(peer.own_cpu_us / own.own_cpu_us),
            Self::Latency => Some(own.p50_us / peer.p50_us),
            Self::Rate => Some(own.rate / peer.rate),
        }
    }

    /// Its name in recorded results and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CpuShare | Self::ThreadShare => "ops per CPU second",
            Self::Latency => "p50",
            Self::Rate => "ops/s",
        }
    }
}

impl Goal {
    /// Whether `ratio` reaches it.
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_listed_once_in_order_under_a_name_of_its_own() {
        assert!(Case::ALL.is_sorted_by(|one, next| one < next));
        let names: std::collections::BTreeSet<_> = Case::ALL.map(Case::name).into();
        assert_eq!(names.len(), Case::ALL.len());
        // What is declared last is last in the list.
        assert_eq!(Case::ALL.last(), Some(&Case::SoftHsmEncrypt));
        for which in Primitive::ALL {
            assert!(Case::ALL.contains(&Case::Raw(which)), "{which:?}");
            assert!(Case::ALL.contains(&Case::Provider(which)), "{which:?}");
        }
    }

    #[test]
    fn nothing_is_compared_with_itself() {
        for case in Case::ALL {
            assert!(case.comparisons().iter().all(|comparison| comparison.peer != case));
        }
    }

    #[test]
    fn ratios_put_the_own_figure_above_the_peers() {
        let peer = Sample {
            operations: 1,
            p50_us: 20.0,
            rate: 50_000.0,
            own_cpu_us: 20.0,
            daemon_cpu_us: None,
        };
        let own = Sample {
            operations: 1,
            p50_us: 40.0,
            rate: 25_000.0,
            own_cpu_us: 5.0,
            daemon_cpu_us: Some(50.0),
        };
        assert_eq!(Kind::Latency.ratio(&own, &peer), Some(2.0));
        assert_eq!(Kind::Rate.ratio(&own, &peer), Some(0.5));
        assert_eq!(Kind::CpuShare.ratio(&own, &peer), Some(0.4));
        assert_eq!(Kind::CpuShare.ratio(&peer, &own), None);
        assert_eq!(Kind::ThreadShare.ratio(&own, &peer), Some(4.0));
    }

    #[test]
    fn a_goal_is_met_at_its_bound() {
        assert!(Goal::AtMost(1.0).is_met(1.0) && !Goal::AtMost(1.0).is_met(1.01));
        assert!(Goal::AtLeast(8.0).is_met(8.0) && !Goal::AtLeast(8.0).is_met(7.9));
    }
}
