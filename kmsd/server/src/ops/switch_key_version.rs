//! EnableKeyVersion and DisableKeyVersion: a switch apart from the state.

use kms_core::action::Action;
use kms_core::id::{Home, VersionName};
use kms_core::key::Version;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::version_name;

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident $request:ident $response:ident $enabled:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(At<VersionName>);

        impl Write for $name {
            type Wire = v1::$request;
            type Target = Found;
            type Reply = v1::$response;

            const ACTION: Action = Action::$name;

            fn parse(wire: v1::$request, home: &Home) -> Result<Self, Refusal> {
                let v1::$request { name, etag, request_id: _ } = wire;
                Ok(Self(At::new(version_name("name", &name, home)?, etag)))
            }

            fn request_id(wire: &v1::$request) -> &[u8] {
                &wire.request_id
            }

            fn at(&self) -> &At<VersionName> {
                &self.0
            }

            async fn change(
                &self,
                _cx: &Context,
                stamp: &Stamp,
                found: &Found,
            ) -> Result<Changed<Self>, Early> {
                let before = found.version.value.settled(stamp.now);
                Ok((Version { enabled: $enabled, ..before }, Vec::new()))
            }

            fn reply(version: v1::KeyVersion, audit: v1::AuditReference) -> v1::$response {
                v1::$response { version: Some(version), audit: Some(audit) }
            }
        }
    )+};
}

switches!(
    /// Switches a version off, whatever its state.
    DisableKeyVersion DisableKeyVersionRequest DisableKeyVersionResponse false;
    /// Switches a version on.
    EnableKeyVersion EnableKeyVersionRequest EnableKeyVersionResponse true;
);
