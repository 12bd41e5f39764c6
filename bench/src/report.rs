//! Everything that was measured: as JSON, as lines, and as a table for a README.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::suite::{Compared, Suite, Word};
use crate::units::value;

/// Figures that are no comparison of variants.
pub struct Table {
    pub title: String,
    /// What the figures are, and how they were taken.
    pub note: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Lines to plot: a name, and points by scale.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// The figures in full.
    pub json: Value,
}

/// A run.
#[derive(Default)]
pub struct Report {
    pub about: String,
    pub suites: Vec<Suite>,
    pub tables: Vec<Table>,
    /// Parts that could not be measured, and why.
    pub broken: Vec<String>,
}

impl Report {
    pub fn json(&self) -> Value {
        let tables: Vec<Value> =
            self.tables.iter().map(|t| json!({"title": t.title, "note": t.note, "figures": t.json})).collect();
        json!({"about": self.about, "suites": self.suites.iter().map(Suite::json).collect::<Vec<_>>(), "tables": tables,
            "failures": self.failures()})
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.about);
        for suite in &self.suites {
            let _ = writeln!(
                text,
                "\n=== {}: median; to {}; this datapath to it, in the median's interval [quartiles]",
                suite.title, suite.variants[0]
            );
            for (m, measure) in suite.measures.iter().enumerate() {
                let better = if measure.more_is_better { "more" } else { "less" };
                let _ = writeln!(text, "{} ({better} is better)", measure.name);
                for row in suite.rows(m) {
                    let own = row.own.map_or("-".to_owned(), |o| value(o.median, measure.unit));
                    let (base, ours) = (compared(&row.to_baseline), compared(&row.ours_to_it));
                    let _ = writeln!(text, "  {:38} {own:>12}  {base:54}  {ours}", row.variant);
                }
            }
        }
        for table in &self.tables {
            let _ = writeln!(text, "\n=== {}\n{}", table.title, table.note);
            let width = |c: usize| {
                table
                    .rows
                    .iter()
                    .chain([&table.head])
                    .filter_map(|r| r.get(c))
                    .map(|s| s.chars().count())
                    .max()
                    .unwrap_or(0)
            };
            for row in [&table.head].into_iter().chain(&table.rows) {
                let cells = row.iter().enumerate().map(|(c, cell)| match c {
                    0 => format!("{cell:<0$}", width(c)),
                    _ => format!("{cell:>0$}", width(c)),
                });
                let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
            }
        }
        for failure in self.failures() {
            let _ = writeln!(text, "failed: {failure}");
        }
        text
    }

    pub fn failures(&self) -> Vec<String> {
        self.broken.iter().cloned().chain(self.suites.iter().flat_map(Suite::failures)).collect()
    }

    /// Tables of this datapath's ratio to everything else.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{}\n\nThis datapath's figure over the other's: median of paired rounds. **Bold**: this datapath loses. In brackets: hidden \
             by noise (an interval that holds the median 19 times in 20 has 1 in it, or equals differ as much).\n",
            self.about
        );
        for suite in &self.suites {
            let rivals = suite.rivals();
            let names: Vec<&str> = rivals.iter().map(|v| suite.variants[*v]).collect();
            let _ = write!(text, "\n| {} | this datapath | to {} |\n", suite.title, names.join(" | to "));
            let _ = writeln!(text, "|---|{}", "---|".repeat(rivals.len() + 1));
            for (m, measure) in suite.measures.iter().enumerate() {
                let rows = suite.rows(m);
                let own = rows[crate::suite::OURS].own.map_or("-".to_owned(), |o| value(o.median, measure.unit));
                let cells: Vec<String> = rivals.iter().map(|v| marked(&rows[*v].ours_to_it)).collect();
                let sign = if measure.more_is_better { "" } else { " (less is better)" };
                let _ = writeln!(text, "| {}{sign} | {own} | {} |", measure.name, cells.join(" | "));
            }
        }
        for table in &self.tables {
            let _ = write!(text, "\n{}: {}\n\n| {} |\n", table.title, table.note, table.head.join(" | "));
            let _ = writeln!(text, "|{}", "---|".repeat(table.head.len()));
            for row in &table.rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        for failure in self.failures() {
            let _ = writeln!(text, "\nFailed: {failure}");
        }
        text
    }
}

fn compared(c: &Option<Compared>) -> String {
    let Some(Compared { judged, word }) = c else { return String::new() };
    let r = judged.ratio;
    let interval = judged.interval.map_or(String::new(), |i| format!(" in {:.2}-{:.2}", i.low, i.high));
    format!("{:5.2}{interval} [{:.2} .. {:.2}] {}", r.median, r.q1, r.q3, word.text())
}

fn marked(c: &Option<Compared>) -> String {
    match c {
        None => "-".to_owned(),
        Some(c) => {
            let ratio = format!("{:.2}", c.judged.ratio.median);
            match c.word {
                Word::Worse => format!("**{ratio}**"),
                Word::Better => ratio,
                Word::Hidden | Word::Noise => format!("({ratio})"),
            }
        }
    }
}
