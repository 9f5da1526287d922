//! The first minute of a store: its root, its first officers. After it the bootstrap door is shut:
//! everything else is asked for over the API by somebody with a role.

use std::path::Path;
use std::sync::Arc;

use kms_core::caller::{Caller, Role};
use kms_core::id::Home;
use kms_proto::v1;

use crate::config::Backend;
use crate::context::Context;
use crate::pipeline;
use crate::root::{self, Protection};
use crate::server::{ServeError, open_store, self_tests};
use crate::{identity, ops};

/// Makes a store in `state`.
///
/// # Errors
/// [`ServeError`] when there is one already, or it cannot be made.
pub(crate) async fn create_store(
    state: &Path,
    backend: Backend,
    home: &Home,
    protection: Protection,
) -> Result<(), ServeError> {
    let store = open_store(state, backend).await?;
    let made = match root::method(&*store).await? {
        Some(_) => Err(ServeError::AlreadyInitialised(state.to_owned())),
        None => Ok(root::create(&*store, self_tests()?, home, protection).await?),
    };
    store.close().await?;
    made
}

/// The daemon, as the enroller of the first people.
///
/// # Errors
/// Never for the roles given here.
pub(crate) fn enroller() -> Result<Caller, ServeError> {
    Ok(identity::daemon(&[Role::SecurityOfficer, Role::KeyManager])?)
}

/// Enrols `user` as the daemon itself. For the first people of a new store.
///
/// # Errors
/// [`ServeError`] when the user cannot be enrolled.
pub(crate) async fn enrol(cx: &Arc<Context>, user: v1::User) -> Result<(), ServeError> {
    let request = v1::CreateUserRequest { user: Some(user), request_id: Vec::new() };
    pipeline::serve::<ops::CreateUser>(cx, &enroller()?, request).await?;
    Ok(())
}
