//! Figures for operators, in the OpenMetrics text form.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kms_core::action::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::failure::Failure;

/// All figures of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    operations: Family<Operation, Counter>,
    seconds: Family<Timed, Histogram>,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// TLS handshakes that did not come to an end.
    pub(crate) handshakes_failed: Counter,
    /// 1 while the root key is closed.
    pub(crate) sealed: Gauge<f64, AtomicU64>,
    /// Leaves in the audit log.
    pub(crate) log_size: Gauge,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Operation {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Timed {
    action: &'static str,
}

impl Metrics {
    /// Figures that all stand at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("kms");
        let operations = Family::default();
        let seconds = Family::<Timed, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
        });
        let (connections, handshakes_failed) = (Gauge::default(), Counter::default());
        let (sealed, log_size) = (Gauge::default(), Gauge::default());
        registry.register("operations", "Operations by action and outcome", operations.clone());
        registry.register("operation_seconds", "Time from request to reply", seconds.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register(
            "handshakes_failed",
            "TLS handshakes that failed or ran out of time",
            handshakes_failed.clone(),
        );
        registry.register("sealed", "1 while the root key is closed", sealed.clone());
        registry.register("log_leaves", "Leaves in the audit log", log_size.clone());
        Self { registry, operations, seconds, connections, handshakes_failed, sealed, log_size }
    }

    /// Counts one operation.
    pub(crate) fn operation<R>(&self, action: Action, result: &Result<R, Failure>, took: Duration) {
        let outcome = match result {
            Ok(_) => "granted",
            Err(Failure::Refused { .. }) => "denied",
            Err(_) => "failed",
        };
        let action = action.as_str();
        self.operations.get_or_create(&Operation { action, outcome }).inc();
        self.seconds.get_or_create(&Timed { action }).observe(took.as_secs_f64());
    }

    /// The figures as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
