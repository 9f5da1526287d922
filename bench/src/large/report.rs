//! A run as a table for people, or as JSON to be recorded.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::measure::median;
use crate::report::{figure, rounded};

use super::times::{Case, Figure, P99_RATIO_MAX, Reached, Times};
use super::{Measured, Part};

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    recorded_unix_seconds: u64,
    machine: &'a Machine,
    load_average_before: Option<f64>,
    load_average_after: Option<f64>,
    rounds: u32,
    parts: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    of: &'static str,
    few: u32,
    many: u32,
    requests: Vec<Row>,
    figures: &'a [Figure],
}

/// Medians of the rounds; ratios are medians of each round's ratio.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    #[serde(skip)]
    title: &'static str,
    few: Times,
    many: Times,
    p50_ratio: f64,
    p99_ratio: f64,
    #[serde(flatten)]
    goal: Reached,
}

/// The run as JSON.
///
/// # Errors
/// [`BenchError::Json`].
pub(super) fn json(measured: &Measured) -> Result<String, BenchError> {
    let Measured { machine, load_before, load_after, rounds, parts } = measured;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let document = Document {
        version: env!("CARGO_PKG_VERSION"),
        recorded_unix_seconds: now.as_secs(),
        machine,
        load_average_before: *load_before,
        load_average_after: *load_after,
        rounds: *rounds,
        parts: parts.iter().map(shown).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)?)
}

fn shown(part: &Part) -> Shown<'_> {
    let Part { population, few, many, times: _, figures } = part;
    Shown { of: population.noun(), few: *few, many: *many, requests: rows(part), figures }
}

/// The run as tables with notes.
pub(super) fn table(measured: &Measured) -> String {
    let Measured { machine, load_before, load_after, rounds, parts } = measured;
    let Machine { cpu, cores, kernel } = machine;
    let load = |load: &Option<f64>| load.map_or_else(|| "unknown".to_owned(), |l| l.to_string());
    let mut text = String::new();
    for part in parts {
        text += &format!("{}\n{}\n", requests(part), figures(part));
    }
    text + &format!(
        "medians of {rounds} rounds on {cpu}, {cores} cores, kernel {kernel}; load average {} before, {} after\n\
         every request, a get or a list too, is on the audit log, synced to disk, before it is answered",
        load(load_before),
        load(load_after)
    )
}

fn requests(part: &Part) -> Table {
    let Part { population, few, many, .. } = part;
    let noun = population.noun();
    let mut table = plain();
    table.set_header([
        "request".to_owned(),
        format!("{few} {noun}\np50 µs"),
        "\np99 µs".to_owned(),
        format!("{many} {noun}\np50 µs"),
        "\np99 µs".to_owned(),
        "\np50 ×".to_owned(),
        "\np99 ×".to_owned(),
        "goal".to_owned(),
    ]);
    for row in rows(part) {
        let Row { title, few, many, p50_ratio, p99_ratio, goal, .. } = row;
        let figures = [few.p50_us, few.p99_us, many.p50_us, many.p99_us, p50_ratio, p99_ratio];
        let cells = figures.map(figure);
        table.add_row([&[title.to_owned()], &cells[..], &[judged(Some(goal), "×")]].concat());
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn figures(part: &Part) -> Table {
    let mut table = plain();
    table.set_header([
        format!("with {} {}", part.many, part.population.noun()).as_str(),
        "",
        "",
        "goal",
    ]);
    for Figure { title, value, unit, goal, .. } in &part.figures {
        table.add_row([title.clone(), figure(*value), (*unit).to_owned(), judged(*goal, unit)]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn judged(goal: Option<Reached>, unit: &str) -> String {
    goal.map_or_else(String::new, |Reached { goal_at_most, goal_met }| {
        format!("≤ {goal_at_most} {unit}: {}", if goal_met { "met" } else { "NOT MET" })
    })
}

fn rows(part: &Part) -> Vec<Row> {
    part.times.iter().filter_map(|(case, rounds)| row(*case, rounds)).collect()
}

fn row(case: Case, rounds: &[[Times; 2]]) -> Option<Row> {
    let middle = |of: fn(&[Times; 2]) -> f64| median(rounds.iter().map(of).collect()).map(rounded);
    let p99_ratio = middle(|[few, many]| many.p99_us / few.p99_us)?;
    Some(Row {
        name: case.name(),
        title: case.title(),
        few: Times {
            p50_us: middle(|[few, _]| few.p50_us)?,
            p99_us: middle(|[few, _]| few.p99_us)?,
        },
        many: Times {
            p50_us: middle(|[_, many]| many.p50_us)?,
            p99_us: middle(|[_, many]| many.p99_us)?,
        },
        p50_ratio: middle(|[few, many]| many.p50_us / few.p50_us)?,
        p99_ratio,
        goal: P99_RATIO_MAX.judge(p99_ratio),
    })
}

#[cfg(test)]
mod tests {
    use super::super::caller::Population;
    use super::super::times::Goal;
    use super::*;

    fn measured() -> Measured {
        let pair =
            |few: f64, many: f64| [few, many].map(|p50_us| Times { p50_us, p99_us: p50_us * 3.0 });
        let figures = vec![
            Figure::new("disk.rows", "disk to the rows", 2.6, "×", Some(Goal(2.5))),
            Figure::new("stop", "clean stop", 0.4, "s", None),
        ];
        let times = vec![
            (Case::GetAny, vec![pair(100.0, 150.0), pair(10.0, 30.0), pair(100.0, 110.0)]),
            (Case::ListFirst, vec![pair(100.0, 300.0)]),
        ];
        let part = Part { population: Population::Keys, few: 1000, many: 9000, times, figures };
        let machine = Machine { cpu: "Some CPU".to_owned(), cores: 2, kernel: "6".to_owned() };
        Measured { machine, load_before: Some(1.5), load_after: None, rounds: 3, parts: vec![part] }
    }

    #[test]
    fn ratios_are_medians_of_the_rounds_ratios() {
        let document: serde_json::Value =
            serde_json::from_str(&json(&measured()).unwrap()).unwrap();
        let part = &document["parts"][0];
        assert_eq!((&part["of"], &part["many"]), (&"keys".into(), &9000.into()));
        let get = &part["requests"][0];
        assert_eq!((&get["name"], &get["p99_ratio"]), (&"get.random".into(), &1.5.into()));
        assert_eq!((&get["goal_met"], &get["many"]["p50_us"]), (&true.into(), &110.0.into()));
        assert_eq!(part["figures"][0]["goal_met"], false);
        assert!(part["figures"][1].get("goal_met").is_none());
    }

    #[test]
    fn the_table_says_which_goals_are_not_met() {
        let text = table(&measured());
        assert!(text.contains("≤ 2 ×: met") && text.contains("≤ 2 ×: NOT MET"), "{text}");
        assert!(text.contains("≤ 2.5 ×: NOT MET"), "{text}");
        assert!(text.contains("with 9000 keys"), "{text}");
        assert!(text.contains("load average 1.5 before, unknown after"), "{text}");
    }
}
