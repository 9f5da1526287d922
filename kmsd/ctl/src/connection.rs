//! Flags and variables that say where the daemon is.

use clap::Args;
use kms_client::{Client, Config};

use crate::failure::Failure;

/// Where the daemon is and how to prove oneself to it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Address: unix:/path/to/kmsd.sock or https://host:port.
    #[arg(long, global = true, env = "KMS_ADDR", hide_env_values = true, value_name = "ADDRESS")]
    addr: Option<String>,
    /// PEM file of the daemon's CA certificate (https).
    #[arg(long, global = true, env = "KMS_CA_CERT", hide_env_values = true, value_name = "FILE")]
    ca_cert: Option<String>,
    /// PEM file of your client certificate (https).
    #[arg(
        long,
        global = true,
        env = "KMS_CLIENT_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    client_cert: Option<String>,
    /// PEM file of its private key (https).
    #[arg(
        long,
        global = true,
        env = "KMS_CLIENT_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    client_key: Option<String>,
}

impl Connection {
    pub(crate) async fn open(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.config()?).await?)
    }

    fn config(&self) -> Result<Config, Failure> {
        let config = Config::from_settings(|variable| match variable {
            "KMS_ADDR" => self.addr.clone(),
            "KMS_CA_CERT" => self.ca_cert.clone(),
            "KMS_CLIENT_CERT" => self.client_cert.clone(),
            "KMS_CLIENT_KEY" => self.client_key.clone(),
            _ => None,
        });
        config.map_err(|error| Failure::Client(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_fill_every_setting() {
        let some = |text: &str| Some(text.to_owned());
        let connection = Connection {
            addr: some("https://kms.example:8443"),
            ca_cert: some("/ca"),
            client_cert: some("/cert"),
            client_key: some("/key"),
        };
        let tls = connection.config().unwrap().tls.unwrap();
        assert_eq!(
            (tls.ca, tls.certificate, tls.key),
            ("/ca".into(), "/cert".into(), "/key".into())
        );
        let without = Connection { addr: None, ..connection };
        assert_eq!(without.config().unwrap_err().exit_code(), 2);
    }
}
