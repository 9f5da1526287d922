//! A run as a table for people, or as JSON to be recorded.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cases::{Case, Comparison, Goal, RAW_SIGN};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::measure::{Sample, median};
use crate::rounds::Measured;

/// The run as a table with notes.
pub(crate) fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    // The table is as wide as it needs to be; a terminal can be made wider, a figure cannot.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "operation",
        "p50 µs",
        "ops/s",
        "client\nCPU µs",
        "kmsd\nCPU µs",
        "beside its peer in the same run",
    ]);
    for row in rows(measured) {
        let compared: Vec<String> = row.compared.iter().map(sentence).collect();
        table.add_row([
            row.title.to_owned(),
            figure(row.p50_us),
            figure(row.ops_per_second),
            figure(row.client_cpu_us),
            row.daemon_cpu_us.map_or_else(|| "-".to_owned(), figure),
            compared.join("\n"),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}", notes(measured))
}

/// The run as JSON.
///
/// # Errors
/// [`BenchError::Json`].
pub(crate) fn json(measured: &Measured) -> Result<String, BenchError> {
    let Measured { machine, load_before, load_after, rounds, softhsm, samples: _ } = measured;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let document = Document {
        version: env!("CARGO_PKG_VERSION"),
        recorded_unix_seconds: now.as_secs(),
        machine,
        load_average_before: *load_before,
        load_average_after: *load_after,
        core_share: core_share(measured).map(rounded),
        rounds: *rounds,
        softhsm2: softhsm.as_deref(),
        cases: rows(measured),
    };
    Ok(serde_json::to_string_pretty(&document)?)
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    recorded_unix_seconds: u64,
    machine: &'a Machine,
    load_average_before: Option<f64>,
    load_average_after: Option<f64>,
    /// Which part of a core a busy thread got; the rest went to others.
    core_share: Option<f64>,
    rounds: u32,
    softhsm2: Option<&'a str>,
    cases: Vec<Row>,
}

/// Medians of one case over the rounds.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    #[serde(skip)]
    title: &'static str,
    p50_us: f64,
    /// Of the rounds, the best and the worst.
    p50_us_min: f64,
    p50_us_max: f64,
    ops_per_second: f64,
    client_cpu_us: f64,
    daemon_cpu_us: Option<f64>,
    compared: Vec<Compared>,
}

#[derive(Serialize)]
struct Compared {
    figure: &'static str,
    peer: &'static str,
    #[serde(skip)]
    as_peer: &'static str,
    ratio: f64,
    #[serde(flatten)]
    goal: Option<Reached>,
}

#[derive(Serialize)]
struct Reached {
    #[serde(skip_serializing_if = "Option::is_none")]
    goal_at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal_at_most: Option<f64>,
    /// None where this run cannot tell.
    goal_met: Option<bool>,
}

fn rows(measured: &Measured) -> Vec<Row> {
    Case::ALL.into_iter().filter_map(|case| row(measured, case)).collect()
}

fn row(measured: &Measured, case: Case) -> Option<Row> {
    let samples = measured.samples.get(&case)?;
    let middle = |of: fn(&Sample) -> f64| median(samples.iter().map(of).collect());
    let p50s = || samples.iter().map(|sample| sample.p50_us);
    let comparisons = case.comparisons().into_iter();
    Some(Row {
        name: case.name(),
        title: case.title(),
        p50_us: rounded(middle(|sample| sample.p50_us)?),
        p50_us_min: rounded(p50s().fold(f64::INFINITY, f64::min)),
        p50_us_max: rounded(p50s().fold(0.0, f64::max)),
        ops_per_second: rounded(middle(|sample| sample.rate)?),
        client_cpu_us: rounded(middle(|sample| sample.own_cpu_us)?),
        daemon_cpu_us: median(samples.iter().filter_map(|sample| sample.daemon_cpu_us).collect())
            .map(rounded),
        compared: comparisons
            .filter_map(|comparison| compare(measured, case, &comparison))
            .collect(),
    })
}

/// The median of the ratios of each round, so that a case and its peer had the same disturbance.
fn compare(measured: &Measured, case: Case, comparison: &Comparison) -> Option<Compared> {
    let Comparison { kind, peer, goal } = *comparison;
    let pairs = measured.samples.get(&case)?.iter().zip(measured.samples.get(&peer)?);
    let ratios = pairs.filter_map(|(own, peer)| kind.ratio(own, peer)).collect();
    let ratio = rounded(median(ratios)?);
    Some(Compared {
        figure: kind.name(),
        peer: peer.name(),
        as_peer: peer.as_peer(),
        ratio,
        goal: goal.map(|goal| reached(goal, can_tell(measured, peer).then(|| goal.is_met(ratio)))),
    })
}

/// A process that sleeps for each write is slowed by others out of all proportion to the busy
/// daemon, so that its ratios flatter us: by a factor of twenty, once.
fn can_tell(measured: &Measured, peer: Case) -> bool {
    let sleeps = matches!(peer, Case::RawSync | Case::RawSyncInPlace | Case::SoftHsmCreate);
    !sleeps || core_share(measured).is_none_or(|share| share >= CORE_SHARE_MIN)
}

fn reached(goal: Goal, goal_met: Option<bool>) -> Reached {
    match goal {
        Goal::AtLeast(bound) => {
            Reached { goal_at_least: Some(bound), goal_at_most: None, goal_met }
        }
        Goal::AtMost(bound) => Reached { goal_at_least: None, goal_at_most: Some(bound), goal_met },
    }
}

fn sentence(compared: &Compared) -> String {
    let Compared { figure: name, peer: _, as_peer, ratio, goal } = compared;
    let goal = goal.as_ref().map_or_else(String::new, |reached| {
        let Reached { goal_at_least, goal_at_most, goal_met } = reached;
        let bound = match (goal_at_least, goal_at_most) {
            (Some(bound), _) => format!("≥ {bound}"),
            (_, Some(bound)) => format!("≤ {bound}"),
            (None, None) => String::new(),
        };
        format!(
            "; goal {bound}: {}",
            match goal_met {
                None => "cannot be told, not quiet",
                Some(true) => "met",
                Some(false) => "NOT MET",
            }
        )
    });
    format!("{} × the {name} of {as_peer}{goal}", figure(*ratio))
}

fn notes(measured: &Measured) -> String {
    let Measured { machine, load_before, load_after, rounds, softhsm, samples: _ } = measured;
    let Machine { cpu, cores, kernel } = machine;
    let load = |load: &Option<f64>| load.map_or_else(|| "unknown".to_owned(), |l| l.to_string());
    let mut text = format!(
        "medians of {rounds} interleaved rounds on {cpu}, {cores} cores, kernel {kernel}; load average {} before, {} after\n\
         every kmsd operation is on its audit log, by a synced leaf or on a lease with one, before it is answered; the peers keep none\n",
        load(load_before),
        load(load_after)
    );
    match softhsm {
        Some(library) => text += &format!("SoftHSM2: {library}"),
        None => text += "skipped: SoftHSM2 is not installed (Debian: softhsm2)",
    }
    if let Some(share) = core_share(measured).filter(|share| *share < CORE_SHARE_MIN) {
        let percent = figure(100.0 * share);
        text += &format!(
            "\nNOT QUIET: a busy thread got {percent} % of a core. What waits for a disk or another process then\n\
             waits for its turn as well, the lone fdatasync most of all; CPU figures hold better"
        );
    }
    text
}

/// CPU time over wall time of the raw library's loop, which never waits of its own accord.
fn core_share(measured: &Measured) -> Option<f64> {
    let samples = measured.samples.get(&RAW_SIGN)?;
    median(samples.iter().map(|sample| sample.rate * sample.own_cpu_us / 1e6).collect())
}

/// Three figures; nothing here is known better than that.
pub(crate) fn figure(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// Thousandths, which is more than is known.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// With less, others disturb.
const CORE_SHARE_MIN: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(p50_us: f64, daemon_cpu_us: Option<f64>) -> Sample {
        let rate = 1e6 / p50_us;
        Sample { operations: 100, p50_us, rate, own_cpu_us: p50_us / 2.0, daemon_cpu_us }
    }

    fn measured(softhsm: bool) -> Measured {
        let mut samples = std::collections::BTreeMap::from([
            (RAW_SIGN, vec![sample(20.0, None); 3]),
            (Case::RawSync, vec![sample(100.0, None); 3]),
            (Case::OursSign1, [300.0, 200.0, 90.0].map(|p50| sample(p50, Some(50.0))).to_vec()),
        ]);
        if softhsm {
            let times = [100.0, 100.0, 10.0].map(|p50| sample(p50, None));
            samples.insert(Case::SoftHsmSign1, times.to_vec());
        }
        let machine = Machine { cpu: "Some CPU".to_owned(), cores: 2, kernel: "6".to_owned() };
        let (load_before, load_after) = (Some(9.0), None);
        let softhsm = softhsm.then(|| "SoftHSM 2.6".to_owned());
        Measured { machine, load_before, load_after, rounds: 3, softhsm, samples }
    }

    #[test]
    fn figures_are_medians_and_ratios_are_medians_of_the_rounds_ratios() {
        let text = json(&measured(true)).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cases = document["cases"].as_array().unwrap();
        let ours = cases.iter().find(|case| case["name"] == "sign.pkcs11.1").unwrap();
        assert_eq!((&ours["p50_us"], &ours["p50_us_min"]), (&200.0.into(), &90.0.into()));
        let beside_softhsm = &ours["compared"][1];
        assert_eq!(beside_softhsm["peer"], "sign.softhsm2.1");
        // 300/100, 200/100 and 90/10; the ratio of the medians would be 2.
        assert_eq!(beside_softhsm["ratio"], 3.0);
        assert_eq!(beside_softhsm["goal_at_most"], 1.0);
        assert_eq!(beside_softhsm["goal_met"], false);
    }

    #[test]
    fn the_table_says_what_was_skipped_and_what_disturbed() {
        let with = table(&measured(true));
        assert!(with.contains("3.00 × the p50 of SoftHSM2"), "{with}");
        assert!(with.contains("goal ≤ 1: NOT MET") && with.contains("SoftHSM 2.6"), "{with}");
        assert!(with.contains("load average 9 before, unknown after"), "{with}");
        assert!(with.contains("NOT QUIET: a busy thread got 50.0 % of a core"), "{with}");
        let without = table(&measured(false));
        assert!(without.contains("skipped: SoftHSM2 is not installed"), "{without}");
        assert!(!without.contains("the p50 of SoftHSM2"), "{without}");
    }

    #[test]
    fn goals_beside_the_disk_are_judged_only_on_a_quiet_machine() {
        let mut run = measured(false);
        run.samples.insert(Case::Unix128, vec![sample(10.0, None); 3]);
        assert!(table(&run).contains("goal ≥ 8: cannot be told, not quiet"));
        for sample in run.samples.get_mut(&RAW_SIGN).unwrap() {
            sample.own_cpu_us = sample.p50_us;
        }
        assert!(table(&run).contains("goal ≥ 8: met"));
    }

    #[test]
    fn three_figures_are_shown() {
        assert_eq!([0.3456, 19.84, 1234.5].map(figure), ["0.35", "19.8", "1234"]);
    }
}
