//! The ATTESTATION_REPORT of AMD's SEV-SNP firmware ABI (document 56860, table 23), read strictly.
//!
//! ```text
//! 000 VERSION  004 GUEST_SVN  008 POLICY  010 FAMILY_ID  020 IMAGE_ID  030 VMPL  034 SIGNATURE_ALGO
//! 038 CURRENT_TCB  040 PLATFORM_INFO  048 flags  050 REPORT_DATA  090 MEASUREMENT  0C0 HOST_DATA
//! 0E0 ID_KEY_DIGEST  110 AUTHOR_KEY_DIGEST  140 REPORT_ID  160 REPORT_ID_MA  180 REPORTED_TCB
//! 188 CPUID (v3 and later)  1A0 CHIP_ID  1E0 COMMITTED_TCB  1E8 CURRENT version  1EC COMMITTED
//! version  1F0 LAUNCH_TCB  1F8 LAUNCH_MIT_VECTOR, 200 CURRENT_MIT_VECTOR (v5)  2A0 SIGNATURE
//! ```
//!
//! All integers are little-endian. A value of [`Report`] has every reserved byte zero and a signature
//! in range; whether the signature is right, and what the fields mean, is asked elsewhere.

use p384::NistP384;
use p384::ecdsa::Signature;
use p384::elliptic_curve::FieldBytes;

use super::tcb::RawTcb;

/// A report of version 2 to 5.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// VERSION.
    pub version: u32,
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// POLICY, undecoded.
    pub policy: u64,
    /// FAMILY_ID.
    pub family_id: [u8; 16],
    /// IMAGE_ID.
    pub image_id: [u8; 16],
    /// VMPL that asked for the report.
    pub vmpl: u32,
    /// CURRENT_TCB.
    pub current_tcb: RawTcb,
    /// PLATFORM_INFO, undecoded.
    pub platform_info: u64,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// MASK_CHIP_KEY: the platform was told not to sign with its chip key.
    pub mask_chip_key: bool,
    /// AUTHOR_KEY_EN: AUTHOR_KEY_DIGEST is meaningful.
    pub author_key_en: bool,
    /// REPORT_DATA: what the guest asked to have signed.
    pub report_data: [u8; 64],
    /// MEASUREMENT of the launch.
    pub measurement: [u8; 48],
    /// HOST_DATA: chosen by the host.
    pub host_data: [u8; 32],
    /// ID_KEY_DIGEST.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: [u8; 48],
    /// REPORT_ID.
    pub report_id: [u8; 32],
    /// REPORT_ID_MA of the migration agent; all ones without.
    pub report_id_ma: [u8; 32],
    /// REPORTED_TCB: the one that the signing key was derived for.
    pub reported_tcb: RawTcb,
    /// Family, model and stepping (CPUID), from version 3 on.
    pub cpuid: Option<[u8; 3]>,
    /// CHIP_ID; all zero when the platform masks it.
    pub chip_id: [u8; 64],
    /// COMMITTED_TCB: the floor that firmware cannot go below.
    pub committed_tcb: RawTcb,
    /// CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR.
    pub current_version: FirmwareVersion,
    /// COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR.
    pub committed_version: FirmwareVersion,
    /// LAUNCH_TCB.
    pub launch_tcb: RawTcb,
    /// LAUNCH_MIT_VECTOR, from version 5 on.
    pub launch_mitigation_vector: Option<u64>,
    /// CURRENT_MIT_VECTOR, from version 5 on.
    pub current_mitigation_vector: Option<u64>,
    /// The first 0x2A0 bytes: what is signed.
    pub signed: Vec<u8>,
    /// SIGNATURE.
    pub signature: Signature,
}

/// Which kind of key signed a report.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SigningKey {
    /// The chip's own (versioned chip endorsement key).
    Vcek,
    /// A cloud operator's (versioned loaded endorsement key).
    Vlek,
}

impl SigningKey {
    /// Its name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

/// Version of the firmware; compares as a version does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FirmwareVersion {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// Where a report departs from the standard.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Not 1184 bytes.
    #[error("it is {0} bytes long, not {REPORT_BYTES}")]
    Length(usize),
    /// A reserved byte is not zero.
    #[error("the reserved byte at 0x{0:03x} is not zero")]
    Reserved(usize),
    /// R or S is zero, too large, or padded with something else than zeros.
    #[error("the signature is not a pair of P-384 scalars followed by zeros")]
    Signature,
    /// SIGNATURE_ALGO is not ECDSA P-384 with SHA-384.
    #[error("signature algorithm {0} is not ECDSA P-384 with SHA-384")]
    SignatureAlgorithm(u32),
    /// SIGNING_KEY is neither VCEK nor VLEK; 7 means unsigned.
    #[error("signing key {0} is neither a VCEK nor a VLEK")]
    SigningKey(u32),
    /// A version with another layout.
    #[error("version {0} is not one of 2 to 5")]
    Version(u32),
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// [`ReportError`] naming the first departure from the standard.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let bytes: &[u8; REPORT_BYTES] =
            bytes.try_into().map_err(|_| ReportError::Length(bytes.len()))?;
        let mut fields = Fields(bytes, 0);
        let version = fields.u32();
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version(version));
        }
        let guest_svn = fields.u32();
        let policy = fields.u64();
        let family_id = fields.take();
        let image_id = fields.take();
        let vmpl = fields.u32();
        let algorithm = fields.u32();
        if algorithm != ECDSA_P384_SHA384 {
            return Err(ReportError::SignatureAlgorithm(algorithm));
        }
        let current_tcb = RawTcb(fields.take());
        let platform_info = fields.u64();
        let flags = fields.u32();
        if flags >> 5 != 0 {
            return Err(ReportError::Reserved(0x48));
        }
        let signing_key = match (flags >> 2) & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            other => return Err(ReportError::SigningKey(other)),
        };
        fields.reserved::<4>()?;
        let report_data = fields.take();
        let measurement = fields.take();
        let host_data = fields.take();
        let id_key_digest = fields.take();
        let author_key_digest = fields.take();
        let report_id = fields.take();
        let report_id_ma = fields.take();
        let reported_tcb = RawTcb(fields.take());
        let cpuid = if version >= 3 {
            Some(fields.take())
        } else {
            fields.reserved::<3>()?;
            None
        };
        fields.reserved::<21>()?;
        let chip_id = fields.take();
        let committed_tcb = RawTcb(fields.take());
        let current_version = fields.version()?;
        let committed_version = fields.version()?;
        let launch_tcb = RawTcb(fields.take());
        let (launch_mitigation_vector, current_mitigation_vector) = if version >= 5 {
            (Some(fields.u64()), Some(fields.u64()))
        } else {
            fields.reserved::<16>()?;
            (None, None)
        };
        fields.reserved::<152>()?;
        let signed = fields.so_far();
        let signature = fields.signature()?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            signing_key,
            mask_chip_key: flags & 2 != 0,
            author_key_en: flags & 1 != 0,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            current_version,
            committed_version,
            launch_tcb,
            launch_mitigation_vector,
            current_mitigation_vector,
            signed,
            signature,
        })
    }

    /// Whether the platform hides which chip it is.
    pub fn chip_id_is_masked(&self) -> bool {
        self.chip_id == [0; 64]
    }
}

/// Takes fields off a report, front to back.
///
/// Taking past the end gives zeros and never happens: the sizes taken by [`Report::parse`] add up to
/// [`REPORT_BYTES`], which a test holds.
struct Fields<'a>(&'a [u8; REPORT_BYTES], usize);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let end = self.1.saturating_add(N);
        let field = self.0.get(self.1..end).and_then(|field| field.try_into().ok());
        self.1 = end;
        field.unwrap_or([0; N])
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn reserved<const N: usize>(&mut self) -> Result<(), ReportError> {
        let begin = self.1;
        match self.take::<N>().iter().position(|&byte| byte != 0) {
            Some(at) => Err(ReportError::Reserved(begin.saturating_add(at))),
            None => Ok(()),
        }
    }

    fn version(&mut self) -> Result<FirmwareVersion, ReportError> {
        let [build, minor, major] = self.take();
        self.reserved::<1>()?;
        Ok(FirmwareVersion { major, minor, build })
    }

    fn so_far(&self) -> Vec<u8> {
        self.0.get(..self.1).unwrap_or_default().to_vec()
    }

    /// R and S, 72 bytes each, little-endian, then 368 reserved bytes. None of the zeros is under
    /// the signature, so they are looked at here.
    fn signature(&mut self) -> Result<Signature, ReportError> {
        let r = self.scalar()?;
        let s = self.scalar()?;
        self.reserved::<368>()?;
        Signature::from_scalars(r, s).map_err(|_| ReportError::Signature)
    }

    fn scalar(&mut self) -> Result<FieldBytes<NistP384>, ReportError> {
        let mut scalar: [u8; 48] = self.take();
        scalar.reverse();
        if self.take::<24>() == [0; 24] { Ok(scalar.into()) } else { Err(ReportError::Signature) }
    }
}

/// Length of a report.
pub const REPORT_BYTES: usize = 0x4a0;
/// Where SIGNATURE begins, and what is signed ends.
pub const SIGNED_BYTES: usize = 0x2a0;
/// The only SIGNATURE_ALGO there is.
const ECDSA_P384_SHA384: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_add_up_to_a_report() {
        let mut bytes = [0; REPORT_BYTES];
        bytes[0] = 3;
        bytes[0x34] = 1;
        bytes[0x2a0] = 1;
        bytes[0x2a0 + 72] = 1;
        let report = Report::parse(&bytes).unwrap();
        assert_eq!(report.signed.len(), SIGNED_BYTES);
        for at in SIGNED_BYTES + 144..REPORT_BYTES {
            let mut bytes = bytes;
            bytes[at] = 1;
            assert_eq!(Report::parse(&bytes), Err(ReportError::Reserved(at)));
        }
    }

    #[test]
    fn only_known_versions_algorithms_and_keys_are_read() {
        let mut good = [0; REPORT_BYTES];
        (good[0], good[0x34], good[0x2a0], good[0x2a0 + 72]) = (3, 1, 1, 1);
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Report::parse(&bytes).err()
        };
        for version in [2, 3, 4, 5] {
            assert_eq!(with(0, version), None);
        }
        for version in [0, 1, 6, 255] {
            assert_eq!(with(0, version), Some(ReportError::Version(version.into())));
        }
        assert_eq!(with(0x34, 2), Some(ReportError::SignatureAlgorithm(2)));
        assert_eq!(with(0x48, 7 << 2), Some(ReportError::SigningKey(7)));
        assert_eq!(with(0x48, 1 << 5), Some(ReportError::Reserved(0x48)));
        assert_eq!(with(0x2a0, 0), Some(ReportError::Signature));
        assert_eq!(Report::parse(&good[1..]), Err(ReportError::Length(REPORT_BYTES - 1)));
    }

    #[test]
    fn the_fields_that_came_with_later_versions_are_reserved_before() {
        let mut good = [0; REPORT_BYTES];
        (good[0], good[0x34], good[0x2a0], good[0x2a0 + 72]) = (2, 1, 1, 1);
        for (at, since) in [(0x188, 3), (0x18a, 3), (0x1f8, 5), (0x207, 5)] {
            for version in 2..=5 {
                let mut bytes = good;
                (bytes[0], bytes[at]) = (version, 1);
                assert_eq!(Report::parse(&bytes).is_ok(), version >= since, "{at:x} v{version}");
            }
        }
    }
}
