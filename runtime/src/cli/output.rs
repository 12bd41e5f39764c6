//! Tables, JSON and templates: `--format` means the same for every command that lists.

use std::io::{ErrorKind, Write};

use serde_json::{Map, Value};

use super::Failure;
use crate::template::Template;

/// Prints to stdout. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(e).context("cannot write to stdout").into())
        }
        _ => Ok(()),
    }
}

/// Prints one value as indented JSON.
///
/// # Errors
/// Those of [`print()`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// A column of a listing: its name in JSON and templates, and its heading in tables.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// `{{.Names}}`.
    pub field: &'static str,
    /// `NAMES`.
    pub heading: &'static str,
}

/// How to print a listing.
pub enum Format {
    /// Aligned columns under headings.
    Table,
    /// One JSON object a line.
    Json,
    /// A line for each row, by a Go template.
    Template(Template),
    /// The same, as aligned columns under headings: `table {{.ID}}\t{{.Names}}`.
    TemplateTable(Template),
}

impl Format {
    /// Reads `--format`: `table`, `json`, a Go template, or `table TEMPLATE`; nothing is a table.
    ///
    /// # Errors
    /// Bad input, quoted.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text else { return Ok(Format::Table) };
        match text.trim() {
            "" | "table" => Ok(Format::Table),
            "json" => Ok(Format::Json),
            plain if !plain.contains("{{") => {
                let expected = "expected json, table, or a Go template such as {{.Names}}";
                Err(Failure::Usage(format!("invalid --format {text:?}: {expected}")))
            }
            template => match template.strip_prefix("table ") {
                Some(columns) => Ok(Format::TemplateTable(parse_template(columns.trim())?)),
                None => Ok(Format::Template(parse_template(template)?)),
            },
        }
    }
}

/// A Go template from the command line, where `\t` and `\n` may stand for tab and newline.
///
/// # Errors
/// Bad input, quoted.
pub fn parse_template(text: &str) -> Result<Template, Failure> {
    let unescaped = text.replace("\\t", "\t").replace("\\n", "\n");
    Template::parse(&unescaped).map_err(|e| Failure::Usage(format!("invalid --format {text:?}: {e}")))
}

/// Renders a template on a value.
///
/// # Errors
/// What the template asks for and the value does not have.
pub fn render(template: &Template, value: &Value) -> Result<String, Failure> {
    template.render(value).map_err(|e| Failure::Failed(anyhow::anyhow!("template: {e}")))
}

/// Prints rows in a format. Every row has a value for every column; further fields are for JSON and templates alone.
///
/// # Errors
/// Those of [`render`] and [`print()`].
pub fn print_rows(format: &Format, columns: &[Column], rows: &[Map<String, Value>]) -> Result<(), Failure> {
    print(&format_rows(format, columns, rows)?)
}

fn format_rows(format: &Format, columns: &[Column], rows: &[Map<String, Value>]) -> Result<String, Failure> {
    let split = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    match format {
        Format::Json => Ok(rows.iter().map(|r| format!("{}\n", Value::Object(r.clone()))).collect()),
        Format::Template(template) => {
            rows.iter().map(|r| Ok(render(template, &Value::Object(r.clone()))? + "\n")).collect()
        }
        Format::TemplateTable(template) => {
            let headings = columns.iter().map(|c| (c.field.to_owned(), c.heading.into())).collect();
            let mut lines = vec![split(render(template, &Value::Object(headings))?)];
            for row in rows {
                lines.push(split(render(template, &Value::Object(row.clone()))?));
            }
            Ok(table(&lines))
        }
        Format::Table => {
            let mut lines = vec![columns.iter().map(|c| c.heading.to_owned()).collect::<Vec<_>>()];
            lines.extend(rows.iter().map(|row| columns.iter().map(|c| cell(row.get(c.field))).collect()));
            Ok(table(&lines))
        }
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|i| cell(Some(i))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

/// Columns at least ten wide and three blanks apart, as Docker aligns its own.
pub fn table(lines: &[Vec<String>]) -> String {
    let width = |s: &String| s.chars().count();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| lines.iter().filter_map(|l| l.get(i)).map(width).max().unwrap_or(0).saturating_add(3).max(10))
        .collect();
    let mut text = String::new();
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if i + 1 < line.len() {
                text.extend(std::iter::repeat_n(' ', widths[i] - width(cell)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: [Column; 2] =
        [Column { field: "ID", heading: "CONTAINER ID" }, Column { field: "Names", heading: "NAMES" }];

    fn formatted(format: Option<&str>) -> String {
        let rows =
            [json!({"ID": "ab", "Names": "web", "More": 1}), json!({"ID": "cdé", "Names": null, "More": [1, 2]})];
        let rows: Vec<_> = rows.iter().map(|r| r.as_object().unwrap().clone()).collect();
        format_rows(&Format::parse(format).unwrap(), &COLUMNS, &rows).unwrap()
    }

    #[test]
    fn a_table() {
        let expected = "CONTAINER ID   NAMES\nab             web\ncdé            \n";
        assert_eq!(formatted(None), expected);
        assert_eq!(formatted(Some("table")), expected);
    }

    #[test]
    fn json_is_an_object_a_line() {
        let expected = "{\"ID\":\"ab\",\"Names\":\"web\",\"More\":1}\n{\"ID\":\"cdé\",\"Names\":null,\"More\":[1,2]}\n";
        assert_eq!(formatted(Some("json")), expected);
    }

    #[test]
    fn templates() {
        assert_eq!(formatted(Some("{{.ID}}={{.Names}}")).lines().next(), Some("ab=web"));
        assert_eq!(formatted(Some(r"table {{.Names}}\t{{.ID}}")).lines().next(), Some("NAMES     CONTAINER ID"));
        assert_eq!(formatted(Some(r"table {{.Names}}\t{{.ID}}")).lines().nth(1), Some("web       ab"));
    }

    #[test]
    fn what_is_no_format_is_quoted() {
        for bad in ["yaml", "{{.ID"] {
            let failure = Format::parse(Some(bad)).err().expect("taken");
            assert_eq!(failure.status(), 2);
            assert!(failure.message().unwrap().contains(&format!("\"{bad}\"")));
        }
    }
}
