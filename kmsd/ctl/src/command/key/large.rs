//! Data that does not fit into one message: `CryptoService.Stream`, with a progress line for people.
//!
//! What is written to a file stands beside it under another name until it is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use kms_client::{StreamError, Streamed, v1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};

/// Data to be used with a key.
pub(crate) enum Source {
    /// All of it, at most 64 KiB.
    Whole(Vec<u8>),
    /// What was read of it, and where the rest is.
    Long {
        /// The first bytes.
        begun: Vec<u8>,
        /// The file, or standard input.
        rest: Rest,
        /// Its length, where that is known.
        length_bytes: Option<u64>,
    },
}

/// Where the rest of the data is.
pub(crate) enum Rest {
    File(PathBuf, File),
    Stdin,
}

/// Reads `path`, or its beginning.
pub(crate) fn read(path: &Path) -> Result<Source, Failure> {
    let (mut rest, length_bytes) = open(path)?;
    let mut begun = Vec::new();
    rest.read_up_to(&mut begun, MESSAGE_BYTES_MAX + 1)?;
    if begun.len() <= MESSAGE_BYTES_MAX {
        return Ok(Source::Whole(begun));
    }
    Ok(Source::Long { begun, rest, length_bytes })
}

/// Reads the first line of `path`, of at most `bytes_max` bytes, and what comes behind it.
pub(crate) fn first_line(path: &Path, bytes_max: usize) -> Result<(Vec<u8>, Source), Failure> {
    let (mut rest, length_bytes) = open(path)?;
    let mut begun = Vec::new();
    rest.read_up_to(&mut begun, bytes_max)?;
    let end = begun.iter().position(|byte| *byte == b'\n').map_or(begun.len(), |at| at + 1);
    let behind = begun.split_off(end);
    let line_bytes = u64::try_from(end).unwrap_or(u64::MAX);
    let length_bytes = length_bytes.map(|length| length.saturating_sub(line_bytes));
    Ok((begun, Source::Long { begun: behind, rest, length_bytes }))
}

fn open(path: &Path) -> Result<(Rest, Option<u64>), Failure> {
    if input::is_dash(path) {
        return Ok((Rest::Stdin, None));
    }
    let failure = |cause| Failure::File { path: path.to_owned(), cause };
    let file = File::open(path).map_err(failure)?;
    let metadata = file.metadata().map_err(failure)?;
    let length_bytes = metadata.is_file().then_some(metadata.len());
    Ok((Rest::File(path.to_owned(), file), length_bytes))
}

impl Rest {
    fn read_up_to(&mut self, bytes: &mut Vec<u8>, bytes_max: usize) -> Result<(), Failure> {
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let (read, path) = match self {
            Self::File(path, file) => (file.take(limit).read_to_end(bytes), path.clone()),
            // Not through a buffer of the standard library, which would keep what tokio is to read.
            Self::Stdin => {
                (stdin().and_then(|file| file.take(limit).read_to_end(bytes)), "-".into())
            }
        };
        read.map(drop).map_err(|cause| Failure::File { path, cause })
    }

    fn into_reader(self) -> io::Result<tokio::fs::File> {
        Ok(tokio::fs::File::from_std(match self {
            Self::File(_, file) => file,
            Self::Stdin => stdin()?,
        }))
    }
}

fn stdin() -> io::Result<File> {
    use std::os::fd::AsFd as _;
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Where what comes back is written, and for whom.
pub(crate) struct Target<'a> {
    pub(crate) out: &'a Path,
    pub(crate) secrecy: Secrecy,
}

/// Runs an operation that gives a result, and no data.
pub(crate) async fn run(
    connection: &Connection,
    name: String,
    mechanism: i32,
    operation: v1::stream_start::Operation,
    source: Source,
) -> Result<Streamed, Failure> {
    let start = v1::StreamStart { name, mechanism, operation: Some(operation) };
    stream(connection, start, source, tokio::io::sink()).await
}

/// Runs an operation that gives data back. `head` is written before it.
pub(crate) async fn convert(
    connection: &Connection,
    name: String,
    mechanism: i32,
    operation: v1::stream_start::Operation,
    source: Source,
    target: Target<'_>,
    head: impl FnOnce(&v1::StreamStarted) -> Vec<u8>,
) -> Result<Streamed, Failure> {
    let start = v1::StreamStart { name, mechanism, operation: Some(operation) };
    let Target { out, secrecy } = target;
    // The head is known when the stream has begun; the data comes into a file of its own until then.
    let (part, file) = part_file(out, secrecy)?;
    let written = async {
        let failure = |cause| Failure::File { path: part.clone(), cause };
        let mut data = file.try_clone().map_err(failure)?;
        let output = tokio::fs::File::from_std(file);
        let done = stream(connection, start, source, output).await?;
        data.rewind().map_err(failure)?;
        finish(&part, data, out, secrecy, &head(&done.started))?;
        Ok(done)
    };
    let written = written.await;
    // Whatever is left of it is not the whole.
    let _ = std::fs::remove_file(&part);
    written
}

/// A file beside `out` (in the temporary folder, for standard output), readable to its owner alone.
fn part_file(out: &Path, secrecy: Secrecy) -> Result<(PathBuf, File), Failure> {
    let failure = |path: &Path| {
        let path = path.to_owned();
        move |cause| Failure::File { path, cause }
    };
    if secrecy == Secrecy::Secret && !input::is_dash(out) && out.exists() {
        return Err(failure(out)(io::ErrorKind::AlreadyExists.into()));
    }
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Failure::Randomness)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let name = format!(".{name}.{}.part", hex::encode(random));
    let part = if input::is_dash(out) {
        std::env::temp_dir().join(name)
    } else {
        out.with_file_name(name)
    };
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
    let file = options.open(&part).map_err(failure(&part))?;
    if input::is_dash(out) {
        // Nobody needs its name: however this program ends, nothing of the data stays behind.
        std::fs::remove_file(&part).map_err(failure(&part))?;
    }
    Ok((part, file))
}

/// Writes head and data to where they belong; the data is also in the file `part`, if that has a name.
fn finish(
    part: &Path,
    mut data: File,
    out: &Path,
    secrecy: Secrecy,
    head: &[u8],
) -> Result<(), Failure> {
    let failure = |cause| Failure::File { path: out.to_owned(), cause };
    if input::is_dash(out) {
        let mut stdout = io::stdout().lock();
        let copied = stdout.write_all(head).and_then(|()| io::copy(&mut data, &mut stdout));
        return copied.and_then(|_| stdout.flush()).map_err(Failure::Output);
    }
    if secrecy == Secrecy::Secret && head.is_empty() {
        // Linking refuses a name that is taken, which renaming does not.
        return std::fs::hard_link(part, out).map_err(failure);
    }
    input::write(out, head, secrecy)?;
    let copied = OpenOptions::new().append(true).open(out).and_then(|mut file| {
        io::copy(&mut data, &mut file)?;
        file.sync_all()
    });
    copied.map_err(failure)
}

async fn stream(
    connection: &Connection,
    start: v1::StreamStart,
    source: Source,
    output: impl AsyncWrite + Unpin,
) -> Result<Streamed, Failure> {
    let client = connection.open().await?;
    let (begun, rest, length_bytes) = match source {
        Source::Whole(bytes) => (bytes, None, None),
        Source::Long { begun, rest, length_bytes } => (begun, Some(rest), length_bytes),
    };
    let bar = progress(length_bytes);
    let told = |sent| bar.set_position(sent);
    let rest: Box<dyn AsyncRead + Unpin> = match rest {
        Some(rest) => Box::new(rest.into_reader().map_err(Failure::Output)?),
        None => Box::new(tokio::io::empty()),
    };
    let input = AsyncReadExt::chain(Cursor::new(begun), rest);
    let done = client.stream(start, input, output, told).await;
    bar.finish_and_clear();
    done.map_err(|error| match error {
        StreamError::Client(error) => Failure::Client(error),
        StreamError::Read(cause) => Failure::input("the data cannot be read", cause),
        StreamError::Write(cause) => Failure::input("the result cannot be written", cause),
        other => Failure::input("stream", other),
    })
}

/// A line on standard error; nothing where that is no terminal.
fn progress(length_bytes: Option<u64>) -> ProgressBar {
    match length_bytes {
        Some(length) => {
            let bar = ProgressBar::new(length);
            let style = ProgressStyle::with_template(
                "{bar:30} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
            );
            // A template that does not parse would be ours, and leaves the plain bar.
            if let Ok(style) = style { bar.with_style(style) } else { bar }
        }
        None => ProgressBar::new_spinner(),
    }
}

/// Longest data of one message.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(source: Source) -> Vec<u8> {
        let Source::Long { mut begun, rest, .. } = source else { panic!("a long source") };
        rest.into_reader().unwrap().read_to_end(&mut begun).await.unwrap();
        begun
    }

    #[tokio::test]
    async fn what_fits_is_whole_and_what_does_not_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![1; MESSAGE_BYTES_MAX]).unwrap();
        assert!(
            matches!(read(&path).unwrap(), Source::Whole(bytes) if bytes.len() == MESSAGE_BYTES_MAX)
        );
        let long: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &long).unwrap();
        assert_eq!(all(read(&path).unwrap()).await, long);
        assert_eq!(read(&folder.path().join("none")).err().unwrap().exit_code(), 2);
    }

    #[tokio::test]
    async fn the_first_line_is_apart_from_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let behind = vec![b'\n'; 200_000];
        std::fs::write(&path, [b"{}\n", &behind[..]].concat()).unwrap();
        let (line, source) = first_line(&path, 1000).unwrap();
        assert_eq!(line, b"{}\n");
        assert!(matches!(source, Source::Long { length_bytes: Some(200_000), .. }));
        assert_eq!(all(source).await, behind);
        std::fs::write(&path, "one line").unwrap();
        assert_eq!(first_line(&path, 1000).unwrap().0, b"one line");
    }

    #[test]
    fn a_secret_is_private_and_replaces_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("secret");
        let (part, mut file) = part_file(&out, Secrecy::Secret).unwrap();
        file.write_all(b"s").unwrap();
        let data = || File::open(&part).unwrap();
        finish(&part, data(), &out, Secrecy::Secret, b"").unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"s");
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(part_file(&out, Secrecy::Secret).is_err());
        assert!(finish(&part, data(), &out, Secrecy::Secret, b"").is_err());
        let public = folder.path().join("public");
        std::fs::write(&public, "an older one, longer").unwrap();
        finish(&part, data(), &public, Secrecy::Public, b"head\n").unwrap();
        assert_eq!(std::fs::read(&public).unwrap(), b"head\ns");
        // What goes to standard output has no name that could stay behind.
        let (part, _file) = part_file(Path::new("-"), Secrecy::Secret).unwrap();
        assert!(!part.exists());
    }
}
