//! Figures for operators, in the OpenMetrics text form.

use std::sync::OnceLock;
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
    /// Those of operations that were granted, as most are, by action: looked up once.
    granted: Vec<OnceLock<(Counter, Histogram)>>,
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
        let granted = Action::ALL.iter().map(|_| OnceLock::new()).collect();
        Self {
            registry,
            operations,
            seconds,
            granted,
            connections,
            handshakes_failed,
            sealed,
            log_size,
        }
    }

    /// Counts one operation.
    pub(crate) fn operation<R>(&self, action: Action, result: &Result<R, Failure>, took: Duration) {
        let count = |(operations, seconds): &(Counter, Histogram)| {
            operations.inc();
            seconds.observe(took.as_secs_f64());
        };
        match (result, self.granted.get(action as usize)) {
            (Ok(_), Some(granted)) => count(granted.get_or_init(|| self.of(action, "granted"))),
            (Ok(_), None) => count(&self.of(action, "granted")),
            (Err(Failure::Refused { .. }), _) => count(&self.of(action, "denied")),
            (Err(_), _) => count(&self.of(action, "failed")),
        }
    }

    fn of(&self, action: Action, outcome: &'static str) -> (Counter, Histogram) {
        let action = action.as_str();
        let operations = self.operations.get_or_create(&Operation { action, outcome }).clone();
        (operations, self.seconds.get_or_create(&Timed { action }).clone())
    }

    /// The figures as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
