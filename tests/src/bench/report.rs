//! The figures as JSON, as a page with plots, and as lines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::load::MEASURES;
use crate::stats::{Spread, paired};

/// The figures of a round, or why there are none.
type Figures = Result<[f64; 8], String>;

/// What was measured: by variant, by round.
pub struct Run {
    pub variants: Vec<(&'static str, Vec<Figures>)>,
    pub about: String,
}

struct Row {
    variant: &'static str,
    ratio: Spread,
    rounds: usize,
    word: &'static str,
}

impl Run {
    fn values(&self, variant: usize, measure: usize) -> Vec<Option<f64>> {
        let finite = |r: &Figures| r.as_ref().ok().map(|f| f[measure]).filter(|f| f.is_finite());
        self.variants[variant].1.iter().map(finite).collect()
    }

    /// Ratios to the first variant; the second is the first once more, and tells the noise.
    fn rows(&self, measure: usize) -> Vec<Row> {
        let baseline = self.values(0, measure);
        let noise = Spread::of(&paired(&self.values(1, measure), &baseline));
        let row = |variant: usize| {
            let ratios = paired(&self.values(variant, measure), &baseline);
            let ratio = Spread::of(&ratios)?;
            let word = match noise {
                _ if variant == 1 => "the noise itself",
                Some(noise) if !ratio.hidden_by(&noise) => {
                    if (ratio.median > 1.0) == MEASURES[measure].2 {
                        "better"
                    } else {
                        "worse"
                    }
                }
                _ => "hidden by noise",
            };
            Some(Row { variant: self.variants[variant].0, ratio, rounds: ratios.len(), word })
        };
        (1..self.variants.len()).filter_map(row).collect()
    }

    fn failures(&self) -> Vec<String> {
        let all = self.variants.iter().flat_map(|(name, rounds)| {
            rounds
                .iter()
                .enumerate()
                .filter_map(move |(i, r)| Some(format!("{name}, round {i}: {}", r.as_ref().err()?)))
        });
        all.collect()
    }

    pub fn json(&self) -> Value {
        let measures: Vec<Value> = (0..MEASURES.len())
            .map(|m| {
                let (name, unit, more_is_better) = MEASURES[m];
                let ratios: Vec<Value> = self.rows(m).iter().map(|r| json!({"variant": r.variant, "median": r.ratio.median,
                    "q1": r.ratio.q1, "q3": r.ratio.q3, "rounds": r.rounds, "verdict": r.word})).collect();
                let raw: serde_json::Map<String, Value> =
                    (0..self.variants.len()).map(|v| (self.variants[v].0.to_owned(), json!(self.values(v, m)))).collect();
                json!({"measure": name, "unit": unit, "more_is_better": more_is_better, "ratios": ratios, "rounds": raw})
            })
            .collect();
        json!({"about": self.about, "baseline": self.variants[0].0, "measures": measures, "failures": self.failures()})
    }

    pub fn text(&self) -> String {
        let mut text = format!("ratios to {}: median [quartiles]\n", self.variants[0].0);
        for (m, (name, ..)) in MEASURES.iter().enumerate() {
            let _ = writeln!(text, "{name} ({} is better)", better(m));
            for r in self.rows(m) {
                let Spread { q1, median, q3 } = r.ratio;
                let _ = writeln!(text, "  {:24} {median:5.2} [{q1:.2} .. {q3:.2}]  {}", r.variant, r.word);
            }
        }
        for failure in self.failures() {
            let _ = writeln!(text, "failed: {failure}");
        }
        text
    }

    pub fn html(&self) -> String {
        let mut page = String::from(
            "<!doctype html><meta charset=utf-8><title>runtime: measurements</title>\n<h1>Measurements</h1>\n",
        );
        let _ = writeln!(page, "<p>{}</p>", escape(&self.about));
        let _ = writeln!(
            page,
            "<p>Ratios to {}, paired round by round: dot = median, line = quartiles; grey = hidden by the noise.</p>",
            self.variants[0].0
        );
        for (m, (name, ..)) in MEASURES.iter().enumerate() {
            let _ = writeln!(page, "<h2>{name}: {} is better</h2>\n{}", better(m), plot(&self.rows(m)));
        }
        for failure in self.failures() {
            let _ = writeln!(page, "<p>Failed: {}</p>", escape(&failure));
        }
        page
    }
}

fn better(measure: usize) -> &'static str {
    if MEASURES[measure].2 { "more" } else { "less" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A line a variant, on a logarithmic axis from a quarter to four.
fn plot(rows: &[Row]) -> String {
    let x = |ratio: f64| 420.0 + 100.0 * ratio.clamp(0.25, 4.0).log2();
    let height = 24 * rows.len() + 30;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">"
    );
    for tick in [0.25, 0.5, 1.0, 2.0, 4.0] {
        let _ = write!(
            svg,
            "<line x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"{1}\" stroke=\"#ccc\"/><text x=\"{0}\" y=\"{2}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            height - 20,
            height - 5
        );
    }
    for (i, r) in rows.iter().enumerate() {
        let y = 24 * i + 14;
        let colour = match r.word {
            "better" => "#187a3c",
            "worse" => "#b3261e",
            _ => "#777",
        };
        let Spread { q1, median, q3 } = r.ratio;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{0}\">{1}</text><line x1=\"{2}\" x2=\"{3}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"4\"/><circle cx=\"{4}\" cy=\"{y}\" r=\"5\" fill=\"{colour}\"/><text x=\"640\" y=\"{0}\" fill=\"{colour}\">{median:.2} {5}</text>",
            y + 4,
            escape(r.variant),
            x(q1),
            x(q3),
            x(median),
            r.word
        );
    }
    svg + "</svg>"
}
