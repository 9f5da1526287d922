//! Files in and out, and values out of arguments. Everything read has an upper bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kms_core::id::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Reads a file, or standard input for `-`, of at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let file = |cause| Failure::File { path: path.to_owned(), cause };
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if is_dash(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(file)?;
    } else {
        File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(file)?;
    }
    if bytes.len() > bytes_max {
        return Err(Failure::input(path.display(), format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = read(path, TEXT_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| Failure::input(path.display(), "not UTF-8 text"))
}

/// Reads and parses a text file: a log key, for example.
pub(crate) fn parse_file<T: std::str::FromStr<Err: std::fmt::Display>>(
    path: &Path,
) -> Result<T, Failure> {
    read_text(path)?.trim().parse().map_err(|error| Failure::input(path.display(), error))
}

/// Reads and parses a JSON file.
pub(crate) fn parse_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| Failure::input(path.display(), error))
}

/// A PIN or passphrase: from `path` (`-` is standard input), else from the environment variable.
/// Never from an argument, which every user of the machine can read.
pub(crate) fn secret(
    path: Option<&Path>,
    flag: &str,
    variable: &str,
) -> Result<Zeroizing<String>, Failure> {
    let text = match path {
        Some(path) => Zeroizing::new(read_text(path)?),
        None => Zeroizing::new(std::env::var(variable).map_err(|_| {
            Failure::Input(format!("no secret given: use {flag} FILE (or -), or set {variable}"))
        })?),
    };
    // Editors and `echo` end the line; a secret does not end with it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Zeroizing::new(text.to_owned()))
}

/// The passphrase of a key file: from `path`, else from the environment, else from whoever sits at the
/// terminal.
pub(crate) fn passphrase(path: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    use std::io::IsTerminal as _;
    let asks =
        path.is_none() && std::env::var_os(PASSPHRASE).is_none() && io::stdin().is_terminal();
    if asks {
        let typed = rpassword::prompt_password(prompt);
        return typed.map(Zeroizing::new).map_err(|cause| Failure::input("passphrase", cause));
    }
    secret(path, "--passphrase-file", PASSPHRASE)
}

const PASSPHRASE: &str = "KMS_KEY_PASSPHRASE";

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Secrecy {
    /// Anybody: replaced when it exists.
    Public,
    /// Its owner: must not exist.
    Secret,
}

/// Writes a file, or standard output for `-`.
pub(crate) fn write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), Failure> {
    if is_dash(path) {
        let mut stdout = io::stdout().lock();
        return stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output);
    }
    let mut options = OpenOptions::new();
    match secrecy {
        Secrecy::Public => options.write(true).create(true).truncate(true),
        Secrecy::Secret => options.write(true).create_new(true).mode(0o600),
    };
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|cause| Failure::File { path: path.to_owned(), cause })
}

/// Whether `path` means standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() { Err("the key is empty".into()) } else { Ok((key.into(), value.into())) }
}

/// An RFC 3339 time.
pub(crate) fn timestamp(text: &str) -> Result<Timestamp, String> {
    const EXPECTED: &str = "expected a time such as 2026-01-31T12:00:00Z, not before 1970";
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| EXPECTED)?;
    let ms = time.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).map(Timestamp).map_err(|_| EXPECTED.to_owned())
}

/// A number of seconds, minutes, hours or days: 90d, 36h, 15m, 30s.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a number and one of s, m, h, d, for example 90d";
    let unit = text.chars().last().ok_or(EXPECTED)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| EXPECTED)?;
    let total = number.checked_mul(seconds).filter(|total| *total <= DURATION_SECONDS_MAX);
    total.map(Duration::from_secs).ok_or_else(|| "longer than a hundred years".to_owned())
}

/// The time that is so long from now by this machine's clock.
pub(crate) fn from_now(after: Duration) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from((now + after).as_millis()).unwrap_or(u64::MAX))
}

/// A time as the contract has it.
pub(crate) fn wire_time(Timestamp(ms): Timestamp) -> prost_types::Timestamp {
    // Milliseconds over 1000 fit into 64 bits with a sign, their rest into 32.
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds, nanos }
}

/// A duration as the contract has it.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: 0 }
}

/// Reads what stands in a file as DER or, in PEM, under `label`.
pub(crate) fn der_or_pem(path: &Path, label: &str) -> Result<Vec<u8>, Failure> {
    let bytes = read(path, TEXT_BYTES_MAX)?;
    if !bytes.trim_ascii_start().starts_with(b"-----") {
        return Ok(bytes);
    }
    let (found, der) = der::pem::decode_vec(bytes.trim_ascii())
        .map_err(|error| Failure::input(path.display(), error))?;
    if found == label {
        Ok(der)
    } else {
        Err(Failure::input(path.display(), format!("expected PEM of a {label}, found {found}")))
    }
}

/// Lower- or upper-case hexadecimal.
pub(crate) fn hex_bytes(text: &str) -> Result<HexBytes, String> {
    hex::decode(text).map(HexBytes).map_err(|_| "expected hexadecimal digits".to_owned())
}

/// Bytes given as hexadecimal digits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

/// 16 random bytes that make a retry the same operation.
pub(crate) fn request_id() -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Randomness)?;
    Ok(bytes)
}

/// The files of a folder, by name, each of at most `bytes_max` bytes and at most `files_max`.
pub(crate) fn read_folder(
    path: &Path,
    files_max: usize,
    bytes_max: usize,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let failure = |cause| Failure::File { path: path.to_owned(), cause };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failure)? {
        let file = entry.map_err(failure)?.path();
        if file.is_file() {
            paths.push(file);
        }
        if paths.len() > files_max {
            return Err(Failure::input(path.display(), format!("more than {files_max} files")));
        }
    }
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, read(&path, bytes_max)?))
    };
    paths.into_iter().map(named).collect()
}

/// No date of a key is further away.
const DURATION_SECONDS_MAX: u64 = 100 * 366 * 86_400;
/// Longest text file that is read.
const TEXT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_and_mistakes_do_not() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z"), Ok(Timestamp(1500)));
        assert!(timestamp("1969-12-31T23:59:59Z").is_err() && timestamp("now").is_err());
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in
            ["", "d", "90", "-1d", "1.5h", "1w", "999999999999999999999d", "99999d", "1\u{e9}"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let wire = wire_time(Timestamp(1500));
        assert_eq!((wire.seconds, wire.nanos), (1, 500_000_000));
        assert_eq!(hex_bytes("0aFF"), Ok(HexBytes(vec![10, 255])));
        assert!(hex_bytes("0").is_err() && hex_bytes("zz").is_err());
    }

    #[test]
    fn a_secret_loses_its_line_end_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        for (written, read) in [("a b \n", "a b "), ("12\r\n", "12"), ("\n\n", "\n"), ("x", "x")] {
            std::fs::write(&path, written).unwrap();
            assert_eq!(*secret(Some(&path), "--pin-file", "KMS_NO_SUCH").unwrap(), read);
        }
        let missing = secret(None, "--pin-file", "KMS_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(missing.contains("--pin-file FILE") && missing.contains("KMS_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        std::fs::write(&path, [0; 5]).unwrap();
        assert!(read(&path, 4).is_err());
        assert_eq!(read(&path, 5).unwrap().len(), 5);
    }

    #[test]
    fn secret_files_are_private_and_never_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, b"s", Secrecy::Secret).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&path, b"t", Secrecy::Secret).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"s");
    }
}
