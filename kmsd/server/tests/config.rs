//! What the daemon makes of its configuration file.
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use kmsd::config::{Config, ConfigError};

fn parse(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsd.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).and_then(Config::checked)
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_column() {
    let error = parse("state = '/s'\nlocation = 'l'\n[listen]\nunx = '/x'\n").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("line 4, column 1") && text.contains("unx"), "{text}");
}

#[test]
fn what_belongs_together_is_held_together() {
    assert!(parse("state = '/s'\nlocation = 'l'\n[listen]\nunix = '/x'\n").is_ok());
    for (text, problem) in [
        ("state = '/s'\nlocation = 'l'\n", "nothing to listen on"),
        ("state = '/s'\nlocation = 'l'\n[listen]\ntcp = '127.0.0.1:1'\n", "needs [tls]"),
        (
            "state = '/s'\nlocation = 'l'\n[listen]\nunix = '/x'\nmetrics = '0.0.0.0:1'\n",
            "loopback",
        ),
    ] {
        assert!(parse(text).unwrap_err().to_string().contains(problem), "{problem}");
    }
}

#[test]
fn the_configuration_in_the_readme_is_taken() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let config = parse(text).unwrap();
    assert!(config.listen.tcp.is_some() && config.attestation.collateral.is_some());
}
