//! Tells listeners which keys changed; who listens too slowly is told that it missed some.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

/// What a listener hears.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// These keys were put or deleted, in this order; the change is durable and readable.
    Keys(Arc<[String]>),
    /// So many events were missed: read anew whatever matters.
    Missed(u64),
}

/// One listener.
#[derive(Debug)]
pub struct Watch(Receiver<Arc<[String]>>);

impl Watch {
    /// Waits for the next change; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(keys) => Some(Change::Keys(keys)),
            Err(RecvError::Lagged(missed)) => Some(Change::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The speaking end.
pub(crate) struct Changes(Sender<Arc<[String]>>);

impl Changes {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(EVENTS_MAX).0)
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// Tells of changed keys. That nobody listens is no error.
    pub(crate) fn tell(&self, keys: Vec<String>) {
        if !keys.is_empty() {
            let _nobody_listens = self.0.send(keys.into());
        }
    }
}

/// How many events a listener may be behind.
pub(crate) const EVENTS_MAX: usize = 1024;
