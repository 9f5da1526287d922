//! The process that asks OpenSSL (`openssl.c`), and what the tests ask it.

use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// The program, compiled once, beside this test program; `None` without OpenSSL's headers or a compiler.
static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_opinion/openssl.c");
    let name = format!("kms-second-opinion-{}", std::process::id());
    let program = std::env::temp_dir().join(name);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let headers = Command::new(&compiler)
        .args(["-E", "-include", "openssl/core_names.h", "-x", "c", "/dev/null"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !headers.is_ok_and(|status| status.success()) {
        return None;
    }
    let compiled = Command::new(&compiler)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .args([source, "-lcrypto"])
        .status()
        .expect("the compiler that was there just now");
    assert!(compiled.success(), "the second opinion does not compile");
    Some(program)
});

/// A running process. It ends when this is dropped.
pub(crate) struct OpenSsl {
    process: Child,
    // Dropped first of the two, which ends the process.
    asked: Option<BufWriter<ChildStdin>>,
    answered: BufReader<ChildStdout>,
}

impl OpenSsl {
    /// `None`, and a line that says so, where there is no OpenSSL 3 to compile against.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = PROGRAM.as_ref() else {
            println!("skipped: no C compiler with OpenSSL 3's headers (Debian: gcc, libssl-dev)");
            return None;
        };
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was compiled just now");
        let asked = process.stdin.take().map(BufWriter::new);
        let answered = BufReader::new(process.stdout.take().expect("it is piped"));
        Some(Self { process, asked, answered })
    }

    /// Asks; `None` when OpenSSL did not do it.
    pub(crate) fn ask(&mut self, fields: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        let asked = self.asked.as_mut().expect("it runs");
        let mut question = vec![fields.len() as u8];
        for field in fields {
            question.extend((field.len() as u32).to_be_bytes());
            question.extend(*field);
        }
        asked.write_all(&question).expect("the second opinion ended");
        asked.flush().expect("the second opinion ended");
        let [ok, count] = self.take::<2>();
        let answer = (0..count).map(|_| {
            let length = u32::from_be_bytes(self.take::<4>());
            let mut field = vec![0; length as usize];
            self.answered.read_exact(&mut field).expect("the second opinion ended");
            field
        });
        let answer: Vec<_> = answer.collect();
        (ok == 1).then_some(answer)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.answered.read_exact(&mut bytes).expect("the second opinion ended");
        bytes
    }

    /// Asks for one thing.
    pub(crate) fn one(&mut self, fields: &[&[u8]]) -> Option<Vec<u8>> {
        self.ask(fields).map(|mut answer| answer.remove(0))
    }

    /// Makes a pair: PKCS#8 and SubjectPublicKeyInfo.
    pub(crate) fn pair(&mut self, kind: &str, size: &str) -> (Vec<u8>, Vec<u8>) {
        let mut pair = self.ask(&[b"pair", kind.as_bytes(), size.as_bytes()]).expect("a pair");
        let public = pair.remove(1);
        (pair.remove(0), public)
    }

    pub(crate) fn version(&mut self) -> String {
        let version = self.one(&[b"version"]).expect("a version");
        String::from_utf8(version).expect("a text")
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        self.asked = None;
        let _ = self.process.wait();
    }
}
