//! Tells listeners which keys changed; who listens too slowly is told that it missed some.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

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
pub struct Watch {
    changes: broadcast::Receiver<Arc<[String]>>,
    stopped: watch::Receiver<bool>,
}

impl Watch {
    /// Waits for the next change; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<Change> {
        match self.changes.recv().await {
            Ok(keys) => Some(Change::Keys(keys)),
            Err(RecvError::Lagged(missed)) => Some(Change::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// Waits until the store has stopped after a failure, or is gone. Then nothing is served any
    /// more, and only another start of the process helps: see
    /// [`StoreError::Poisoned`](crate::StoreError::Poisoned).
    pub async fn stopped(mut self) {
        // An error means that the store is gone.
        let _stopped_or_gone = self.stopped.wait_for(|stopped| *stopped).await;
    }
}

/// The speaking end.
pub(crate) struct Changes {
    changes: broadcast::Sender<Arc<[String]>>,
    stopped: watch::Sender<bool>,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self { changes: broadcast::channel(EVENTS_MAX).0, stopped: watch::channel(false).0 }
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch { changes: self.changes.subscribe(), stopped: self.stopped.subscribe() }
    }

    /// Tells of changed keys. That nobody listens is no error.
    pub(crate) fn tell(&self, keys: Vec<String>) {
        if !keys.is_empty() {
            let _nobody_listens = self.changes.send(keys.into());
        }
    }

    /// Tells that the store has stopped after a failure.
    pub(crate) fn tell_stopped(&self) {
        self.stopped.send_replace(true);
    }
}

/// How many events a listener may be behind.
pub(crate) const EVENTS_MAX: usize = 1024;
