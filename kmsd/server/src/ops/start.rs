//! The daemon's own marks in the log: it began to serve, it ended in order.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;

macro_rules! mark {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Operation for $name {
            type Wire = ();
            type Facts = ();
            type Prepared = ();
            type Reply = ();

            const ACTION: Action = Action::$name;

            fn parse((): (), _home: &Home) -> Result<Self, Refusal> {
                Ok(Self)
            }

            async fn load(&self, _cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<(), Early> {
                Ok(())
            }

            fn resource(&self, (): &()) -> Resource {
                Resource::Appliance
            }

            fn subject<'a>(&self, (): &'a ()) -> Subject<'a> {
                Subject::Plain
            }

            async fn prepare(
                &self,
                _cx: &Context,
                _permit: &Permit,
                _stamp: &Stamp,
                (): &(),
            ) -> Result<((), Vec<Draft>), Early> {
                Ok(((), Vec::new()))
            }

            async fn perform(
                self,
                _cx: &Context,
                recorded: Recorded,
                stamp: &Stamp,
                (): (),
                (): (),
                _audit: v1::AuditReference,
            ) -> Result<(), Failure> {
                let _spent =
                    recorded.spend(Self::ACTION, &Resource::Appliance, &stamp.request_digest)?;
                Ok(())
            }
        }
    };
}

mark!(
    /// The daemon begins to serve.
    Start
);
mark!(
    /// The daemon ends in order.
    Stop
);
