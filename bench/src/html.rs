//! The report as a page with plots.

use std::fmt::Write as _;

use crate::report::{Report, Table};
use crate::suite::{BASELINE, Compared, OURS, Suite, Word};
use crate::units::value;

const STYLE: &str = "body{font:14px sans-serif;max-width:72em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}\
                     td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
                     h3{margin:1.2em 0 .2em}";
const COLOURS: [&str; 8] = ["#1f5fa8", "#b3261e", "#187a3c", "#8a5a00", "#6a3d9a", "#00838f", "#c2185b", "#555555"];

/// The whole page; it needs nothing else.
pub fn page(report: &Report) -> String {
    let mut page =
        format!("<!doctype html><meta charset=utf-8><title>runtime: measurements</title><style>{STYLE}</style>\n");
    let _ = writeln!(page, "<h1>Measurements</h1>\n<p>{}</p>", escape(&report.about));
    page += "<p>Each line is this datapath's figure over the other's, paired round by round: dot = median, thick line = where the \
             median is known to be (19 times in 20), thin line = quartiles. Green: this datapath \
             is better. Red: it is worse. Grey: the noise hides it. Hollow: a variant against itself, which is the noise.</p>\n";
    for suite in &report.suites {
        let _ = writeln!(page, "<h2>{}</h2>", escape(suite.title));
        for (m, measure) in suite.measures.iter().enumerate() {
            let better = if measure.more_is_better { "more" } else { "less" };
            let _ = writeln!(page, "<h3>{}: {better} is better</h3>\n{}", escape(measure.name), ratios(suite, m));
        }
    }
    for table in &report.tables {
        let _ = writeln!(page, "<h2>{}</h2>\n<p>{}</p>\n{}", escape(&table.title), escape(&table.note), grid(table));
        if !table.lines.is_empty() {
            page += &scales(&table.lines);
        }
    }
    for failure in report.failures() {
        let _ = writeln!(page, "<p>Failed: {}</p>", escape(&failure));
    }
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn grid(table: &Table) -> String {
    let line = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(|r| line(r, "td")).collect();
    format!("<table>{}{rows}</table>\n", line(&table.head, "th"))
}

fn svg(width: u32, height: u32, inner: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\
         {inner}</svg>\n"
    )
}

/// A line a variant, on a logarithmic axis from a quarter to four.
fn ratios(suite: &Suite, measure: usize) -> String {
    let x = |ratio: f64| 560.0 + 90.0 * ratio.clamp(0.25, 4.0).log2();
    let rows = suite.rows(measure);
    let own = |v: usize| rows[v].own.map_or("-".to_owned(), |o| value(o.median, suite.measures[measure].unit));
    let height = 24 * rows.len() as u32 + 24;
    let mut inner = String::new();
    for tick in [0.25, 0.5, 1.0, 2.0, 4.0] {
        let _ = write!(
            inner,
            "<line x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"{1}\" stroke=\"#ccc\"/><text x=\"{0}\" y=\"{2}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            height - 18,
            height - 4
        );
    }
    for (v, row) in rows.iter().enumerate() {
        let y = 24 * v + 14;
        let shown = if v == BASELINE + 1 { &row.to_baseline } else { &row.ours_to_it };
        let _ = write!(
            inner,
            "<text x=\"0\" y=\"{0}\"{bold}>{1}</text><text x=\"350\" y=\"{0}\" text-anchor=\"end\">{2}</text>",
            y + 4,
            escape(row.variant),
            own(v),
            bold = if v == OURS { " font-weight=\"bold\"" } else { "" },
        );
        if let Some(c) = shown {
            inner += &mark(c, y, &x);
        }
    }
    svg(940, height, &inner)
}

fn mark(c: &Compared, y: usize, x: &impl Fn(f64) -> f64) -> String {
    let colour = match c.word {
        Word::Better => "#187a3c",
        Word::Worse => "#b3261e",
        Word::Hidden | Word::Noise => "#777",
    };
    let fill = if c.word == Word::Noise { "#fff" } else { colour };
    let r = c.judged.ratio;
    let interval = c.judged.interval.map_or(String::new(), |i| {
        let (low, high) = (x(i.low), x(i.high));
        format!("<line x1=\"{low}\" x2=\"{high}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"5\"/>")
    });
    format!(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"1\"/>{interval}<circle cx=\"{2}\" cy=\"{y}\" r=\"5\" \
         fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"760\" y=\"{3}\" fill=\"{colour}\">{4:.2} {5}</text>",
        x(r.q1),
        x(r.q3),
        x(r.median),
        y + 4,
        r.median,
        c.word.text()
    )
}

/// Lines over a logarithmic scale, on one: a new conversation costs ten times what the others' packets do.
fn scales(lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points);
    const LEAST: f64 = 10.0;
    let most = points().map(|p| p.1).fold(10.0 * LEAST, f64::max).log10().ceil();
    let powers = most - LEAST.log10();
    let widest = points().map(|p| p.0).fold(10.0, f64::max).log10();
    let x = |scale: f64| 60.0 + 480.0 * scale.max(1.0).log10() / widest;
    let y = |v: f64| 280.0 - 260.0 * (v.max(LEAST) / LEAST).log10() / powers;
    let mut inner = String::from(
        "<line x1=\"60\" x2=\"540\" y1=\"280\" y2=\"280\" stroke=\"#333\"/><line x1=\"60\" x2=\"60\" y1=\"20\" y2=\"280\" stroke=\"#333\"/>",
    );
    for power in 1..=most as i32 {
        let at = 10f64.powi(power);
        let _ = write!(
            inner,
            "<line x1=\"60\" x2=\"540\" y1=\"{0}\" y2=\"{0}\" stroke=\"#ddd\"/><text x=\"52\" y=\"{1}\" text-anchor=\"end\">{at}</text>",
            y(at),
            y(at) + 4.0
        );
    }
    for power in 0..=widest as u32 {
        let at = 10f64.powi(power as i32);
        let _ = write!(inner, "<text x=\"{}\" y=\"300\" text-anchor=\"middle\">{at}</text>", x(at));
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: String = points.iter().map(|(px, py)| format!("{:.1},{:.1} ", x(*px), y(*py))).collect();
        let _ = write!(
            inner,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"560\" y=\"{}\" fill=\"{colour}\">{}</text>",
            30 + 20 * i,
            escape(name)
        );
        for (px, py) in points {
            let _ = write!(inner, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*px), y(*py));
        }
    }
    svg(940, 310.max(50 + 20 * lines.len() as u32), &inner)
}
