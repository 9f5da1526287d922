//! Compiles `kms/v1/*.proto` without protoc (protox parses them in Rust).

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut protos: Vec<_> = std::fs::read_dir(Path::new("kms/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    protos.sort();
    println!("cargo::rerun-if-changed=kms/v1");
    let descriptors = protox::compile(&protos, ["."])?;
    let mut builder = tonic_prost_build::configure();
    for message in SENSITIVE {
        builder = builder.skip_debug([format!(".kms.v1.{message}")]);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// Messages with secret bytes: their `Debug` is written by hand in `src/redact.rs`.
const SENSITIVE: [&str; 13] = [
    "DecryptResponse",
    "DigestRequest",
    "EncryptRequest",
    "GenerateRandomResponse",
    "LoginTokenRequest",
    "MacSignRequest",
    "MacVerifyRequest",
    "SessionRequest",
    "SessionResponse",
    "SetTokenPinRequest",
    "StreamRequest",
    "StreamResponse",
    "UnsealRequest",
];
