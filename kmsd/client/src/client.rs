//! One connection and the services on it.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::config::Config;
use crate::connector::{self, ChannelBinding, SharedBinding};
use crate::error::ClientError;
use crate::v1::appliance_service_client::ApplianceServiceClient;
use crate::v1::audit_service_client::AuditServiceClient;
use crate::v1::crypto_service_client::CryptoServiceClient;
use crate::v1::identity_service_client::IdentityServiceClient;
use crate::v1::key_management_service_client::KeyManagementServiceClient;
use crate::v1::proposal_service_client::ProposalServiceClient;
use crate::v1::release_service_client::ReleaseServiceClient;
use crate::v1::seal_service_client::SealServiceClient;
use crate::v1::token_service_client::TokenServiceClient;

/// A connection to the daemon. Clones share it.
///
/// The accessors give the generated clients; [`Client::call`] and [`Client::retry`] run one of
/// their calls with a deadline and turn its status into a [`ClientError`].
///
/// ```no_run
/// # async fn example() -> Result<(), kms_client::ClientError> {
/// use kms_client::{Client, Config, v1};
///
/// let client = Client::connect(&Config::from_env()?).await?;
/// let who = client.retry(async || client.identity().who_am_i(v1::WhoAmIRequest {}).await).await?;
/// println!("{}", who.principal);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    binding: SharedBinding,
    timeout: Duration,
}

impl Client {
    /// Connects, and proves both ends by TLS or the Unix socket.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the settings cannot be used, [`ClientError::Unavailable`] when
    /// there is no connection to be had.
    pub async fn connect(config: &Config) -> Result<Self, ClientError> {
        let (channel, binding) = connector::open(config, None).await?;
        Ok(Self { channel, binding, timeout: config.timeout })
    }

    /// What the current connection is bound to. When the connection breaks, the next call dials
    /// again and the binding changes: compare before and after what must be one connection.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.binding.current()
    }

    /// Makes one call, once.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Deadline`] or [`ClientError::Unavailable`] the
    /// operation may have been done.
    pub async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(ClientError::Deadline),
        }
    }

    /// Makes a call that may safely reach the daemon twice: one that changes nothing, or one whose
    /// request carries a `request_id`. Repeats it a few times while the daemon cannot be reached.
    ///
    /// # Errors
    /// [`ClientError`] of the last attempt.
    pub async fn retry<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        for pause in RETRY_PAUSES {
            match self.call(call()).await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.call(call()).await
    }

    /// The longest that one call may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// `ApplianceService`.
    pub fn appliance(&self) -> ApplianceServiceClient<Channel> {
        ApplianceServiceClient::new(self.channel.clone())
    }

    /// `AuditService`.
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    /// `CryptoService`.
    pub fn crypto(&self) -> CryptoServiceClient<Channel> {
        CryptoServiceClient::new(self.channel.clone())
    }

    /// `IdentityService`.
    pub fn identity(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel.clone())
    }

    /// `KeyManagementService`.
    pub fn keys(&self) -> KeyManagementServiceClient<Channel> {
        KeyManagementServiceClient::new(self.channel.clone())
    }

    /// `ProposalService`.
    pub fn proposals(&self) -> ProposalServiceClient<Channel> {
        ProposalServiceClient::new(self.channel.clone())
    }

    /// `ReleaseService`.
    pub fn release(&self) -> ReleaseServiceClient<Channel> {
        ReleaseServiceClient::new(self.channel.clone())
    }

    /// `SealService`.
    pub fn seal(&self) -> SealServiceClient<Channel> {
        SealServiceClient::new(self.channel.clone())
    }

    /// `TokenService`.
    pub fn token(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone())
    }
}

/// How long to wait before each further attempt.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
