//! Results: one value, shown as a table to people or as JSON to programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::failure::Failure;

/// For whom results are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON document on standard output.
    Json,
    /// Tables and text.
    Table,
}

/// The result of a command.
#[derive(Debug)]
#[must_use]
pub(crate) struct Report {
    /// False when the command did its work and the answer is no.
    pub(crate) accepted: bool,
    /// Whether others have to approve before there is more.
    pub(crate) awaits_approval: bool,
    shown: Shown,
    /// Text after the table, for people only.
    notes: Vec<String>,
}

#[derive(Debug)]
enum Shown {
    /// The result went elsewhere: data on standard output.
    Nothing,
    /// One thing.
    Fields(Value),
    /// Many things of a kind: the member that holds them, and which of theirs are columns.
    Rows { value: Value, member: &'static str, columns: &'static [&'static str] },
}

impl Report {
    /// Shows nothing: standard output belongs to data.
    pub(crate) const fn nothing() -> Self {
        Self::of(Shown::Nothing)
    }

    /// Shows the members of one object.
    pub(crate) const fn fields(value: Value) -> Self {
        Self::of(Shown::Fields(value))
    }

    /// Shows `rows`, as the member `member` of an object, with those of their members that are
    /// named in `columns` as a table.
    pub(crate) fn rows(
        member: &'static str,
        columns: &'static [&'static str],
        rows: Vec<Value>,
    ) -> Self {
        Self::of(Shown::Rows { value: json!({ member: rows }), member, columns })
    }

    const fn of(shown: Shown) -> Self {
        Self { accepted: true, awaits_approval: false, shown, notes: Vec::new() }
    }

    /// Adds a member beside the rows or to the object.
    pub(crate) fn with(mut self, name: &str, member: Value) -> Self {
        if let Shown::Fields(value) | Shown::Rows { value, .. } = &mut self.shown {
            value[name] = member;
        }
        self
    }

    /// Adds a line for people.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Makes the exit code say no unless `accepted`.
    pub(crate) const fn accepted_if(mut self, accepted: bool) -> Self {
        self.accepted = accepted;
        self
    }

    /// Makes the exit code say that others have to approve.
    pub(crate) const fn awaiting_approval(mut self) -> Self {
        self.awaits_approval = true;
        self
    }

    /// Writes the result to standard output.
    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        let text = self.render(format);
        let written = io::stdout().lock().write_all(text.as_bytes());
        match written {
            // `kmsctl … | head` is no failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        }
    }

    /// What programs get.
    #[cfg(test)]
    pub(crate) fn to_json(&self) -> Value {
        serde_json::from_str(&self.render(Format::Json)).unwrap()
    }

    fn render(&self, format: Format) -> String {
        match (&self.shown, format) {
            (Shown::Nothing, _) => String::new(),
            (Shown::Fields(value) | Shown::Rows { value, .. }, Format::Json) => {
                format!("{value}\n")
            }
            (Shown::Fields(value), Format::Table) => self.with_notes(&fields_table(value)),
            (Shown::Rows { value, member, columns }, Format::Table) => {
                let rows = value[member].as_array().map_or(&[][..], Vec::as_slice);
                let table =
                    if rows.is_empty() { "none".to_owned() } else { rows_table(columns, rows) };
                self.with_notes(&table)
            }
        }
    }

    fn with_notes(&self, table: &str) -> String {
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}

fn fields_table(value: &Value) -> String {
    let mut table = empty_table();
    for (name, member) in value.as_object().into_iter().flatten() {
        let text = cell(member);
        // What is not set tells people nothing; programs get every member.
        if !text.is_empty() {
            table.add_row([name.replace('_', " ").as_str(), text.trim_end()]);
        }
    }
    table.to_string()
}

fn rows_table(columns: &[&str], rows: &[Value]) -> String {
    let mut table = empty_table();
    table.set_header(columns.iter().map(|name| name.replace('_', " ").to_uppercase()));
    for row in rows {
        table.add_row(columns.iter().map(|name| cell(&row[*name])));
    }
    table.to_string()
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// One value in a cell. Control characters do not reach the terminal: texts come from others.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n"),
        Value::Object(members) if members.values().all(|member| !member.is_object()) => {
            let pairs = members.iter().map(|(name, member)| format!("{name}={}", cell(member)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        Value::Object(members) => {
            let lines = members.iter().map(|(name, member)| format!("{name}: {}", cell(member)));
            lines.collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Report {
        let row = |name: &str| json!({ "name": name, "state": "ACTIVE", "hidden": 1 });
        Report::rows("keys", &["name", "state"], vec![row("a"), row("bb")])
    }

    #[test]
    fn rows_are_a_table_for_people_and_whole_for_programs() {
        let table = rows().note("2 keys").render(Format::Table);
        assert_eq!(table, " NAME  STATE\n a     ACTIVE\n bb    ACTIVE\n2 keys\n");
        let json: Value = serde_json::from_str(&rows().render(Format::Json)).unwrap();
        assert_eq!(json["keys"][1]["hidden"], 1);
    }

    #[test]
    fn fields_are_lines() {
        let report = Report::fields(json!({ "log_key": "k", "labels": { "a": "b" }, "n": 3 }));
        let text = report.render(Format::Table);
        assert!(text.contains("labels   a=b") && text.contains("log key  k"), "{text}");
        let report = Report::fields(json!({ "all": [{ "a": 1, "b": ["x", "y"] }, { "a": 2 }] }));
        let text = report.render(Format::Table);
        assert!(text.contains("a=1, b=x, y") && text.contains("a=2"), "{text}");
    }

    #[test]
    fn what_is_not_set_is_left_out_for_people_only() {
        let report = Report::fields(json!({ "model": "", "quorum": null, "tags": [], "n": 0 }));
        assert_eq!(report.render(Format::Table), " n  0\n");
        let json: Value = serde_json::from_str(&report.render(Format::Json)).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 4);
    }

    #[test]
    fn an_empty_list_says_so_and_is_an_empty_array() {
        let empty = Report::rows("keys", &["name"], Vec::new());
        assert_eq!(empty.render(Format::Table), "none\n");
        assert_eq!(empty.render(Format::Json), "{\"keys\":[]}\n");
    }

    #[test]
    fn texts_of_others_cannot_drive_the_terminal() {
        let report = Report::fields(json!({ "label": "\u{1b}[2Jgone" }));
        assert!(!report.render(Format::Table).contains('\u{1b}'));
    }

    #[test]
    fn data_on_standard_output_stays_alone() {
        assert_eq!(Report::nothing().note("x").render(Format::Table), "");
    }
}
