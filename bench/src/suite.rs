//! Variants of one path, measured side by side and compared round by round.

use serde_json::{Value, json};

use crate::stats::{Judged, Spread, paired, shuffled};

/// What is measured.
#[derive(Debug)]
pub struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    pub more_is_better: bool,
}

impl Measure {
    pub const fn more(name: &'static str, unit: &'static str) -> Self {
        Measure { name, unit, more_is_better: true }
    }

    pub const fn less(name: &'static str, unit: &'static str) -> Self {
        Measure { name, unit, more_is_better: false }
    }
}

/// One variant's figures of a round or of a load, or why there are none.
pub type Figures = Result<Vec<f64>, String>;

/// Where in every suite's list of variants the baseline stands, and this datapath; each is followed by itself once more.
pub const BASELINE: usize = 0;
pub const OURS: usize = 2;
/// Where the other variants begin.
const OTHERS: usize = 4;

/// The figures of one place that clients stand in, by variant, by round.
pub struct Suite {
    pub title: &'static str,
    pub measures: &'static [Measure],
    pub variants: Vec<&'static str>,
    pub rounds: Vec<Vec<Figures>>,
    /// The order in which each round's loads were put on the variants.
    orders: Vec<Vec<Vec<usize>>>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Better,
    Worse,
    Hidden,
    /// A variant against itself.
    Noise,
}

impl Word {
    pub const fn text(self) -> &'static str {
        match self {
            Word::Better => "better",
            Word::Worse => "worse",
            Word::Hidden => "hidden by noise",
            Word::Noise => "the noise itself",
        }
    }
}

/// A ratio between two variants.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    pub judged: Judged,
    pub word: Word,
}

/// One variant's line under a measure.
pub struct Row {
    pub variant: &'static str,
    pub own: Option<Spread>,
    /// This variant's figures over the baseline's.
    pub to_baseline: Option<Compared>,
    /// This datapath's figures over this variant's.
    pub ours_to_it: Option<Compared>,
}

impl Suite {
    /// `variants` begin with the baseline and this datapath, each followed by itself once more.
    pub fn new(title: &'static str, measures: &'static [Measure], variants: Vec<&'static str>) -> Self {
        assert!(variants.len() >= OTHERS, "{title}: the baseline and the datapath, each twice");
        Suite { title, measures, variants, rounds: Vec::new(), orders: Vec::new() }
    }

    /// Puts each load on every variant, one after the other, in an order that the numbers of round and load decide: what is
    /// compared was measured within a moment. The figures of all loads make up the measures.
    pub fn round<L: Copy>(&mut self, loads: &[L], mut measure: impl FnMut(usize, L) -> Figures) {
        let mut figures: Vec<Figures> = self.variants.iter().map(|_| Ok(Vec::new())).collect();
        let mut orders = Vec::new();
        for (n, load) in loads.iter().enumerate() {
            let order = shuffled(self.variants.len(), (self.rounds.len() * loads.len() + n) as u64);
            for i in &order {
                let more = measure(*i, *load);
                // The first failure stands for the variant's round.
                if let Ok(all) = &mut figures[*i] {
                    match more {
                        Ok(more) => all.extend(more),
                        Err(e) => figures[*i] = Err(e),
                    }
                }
            }
            orders.push(order);
        }
        self.rounds.push(figures);
        self.orders.push(orders);
    }

    fn values(&self, variant: usize, measure: usize) -> Vec<Option<f64>> {
        let value = |round: &Vec<Figures>| round[variant].as_ref().ok().map(|f| f[measure]).filter(|f| f.is_finite());
        self.rounds.iter().map(value).collect()
    }

    /// One variant's figures over another's.
    fn compare(&self, measure: usize, variant: usize, to: usize) -> Option<Compared> {
        let ratios = |v: usize, b: usize| paired(&self.values(v, measure), &self.values(b, measure));
        let equals = [ratios(BASELINE + 1, BASELINE), ratios(OURS + 1, OURS)];
        let judged = Judged::of(&ratios(variant, to), &equals)?;
        let word = match judged.real {
            _ if variant == to + 1 && (to == BASELINE || to == OURS) => Word::Noise,
            false => Word::Hidden,
            true if (judged.ratio.median > 1.0) == self.measures[measure].more_is_better => Word::Better,
            true => Word::Worse,
        };
        Some(Compared { judged, word })
    }

    pub fn rows(&self, measure: usize) -> Vec<Row> {
        let row = |v: usize| {
            let own: Vec<f64> = self.values(v, measure).into_iter().flatten().collect();
            Row {
                variant: self.variants[v],
                own: Spread::of(&own),
                to_baseline: (v != BASELINE).then(|| self.compare(measure, v, BASELINE)).flatten(),
                ours_to_it: match v {
                    OURS => None,
                    v if v == OURS + 1 => self.compare(measure, OURS + 1, OURS),
                    v => self.compare(measure, OURS, v),
                },
            }
        };
        (0..self.variants.len()).map(row).collect()
    }

    /// The variants that this datapath is to be compared with.
    pub fn rivals(&self) -> Vec<usize> {
        std::iter::once(BASELINE).chain(OTHERS..self.variants.len()).collect()
    }

    pub fn failures(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (i, round) in self.rounds.iter().enumerate() {
            for (name, figures) in self.variants.iter().zip(round) {
                if let Err(e) = figures {
                    all.push(format!("{}: {name}, round {i}: {e}", self.title));
                }
            }
        }
        all
    }

    pub fn json(&self) -> Value {
        let compared = |c: &Option<Compared>| {
            let Some(Compared { judged: j, word }) = c else { return Value::Null };
            json!({"median": j.ratio.median, "q1": j.ratio.q1, "q3": j.ratio.q3, "interval": j.interval.map(|i| [i.low, i.high]),
                "rounds": j.rounds, "sign_test": j.chance, "verdict": word.text()})
        };
        let measures: Vec<Value> = self.measures.iter().enumerate().map(|(m, measure)| {
            let variants: Vec<Value> = self.rows(m).iter().enumerate().map(|(v, row)| {
                json!({"variant": row.variant, "median": row.own.map(|o| o.median), "rounds": self.values(v, m),
                    "to_baseline": compared(&row.to_baseline), "datapath_to_it": compared(&row.ours_to_it)})
            }).collect();
            json!({"measure": measure.name, "unit": measure.unit, "more_is_better": measure.more_is_better, "variants": variants})
        }).collect();
        json!({"suite": self.title, "baseline": self.variants[BASELINE], "datapath": self.variants[OURS],
            "orders": self.orders, "measures": measures, "failures": self.failures()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: &[Measure] = &[Measure::more("speed", "/s"), Measure::less("time", "s")];

    fn suite() -> Suite {
        let mut suite = Suite::new("s", MEASURES, vec!["base", "base again", "ours", "ours again", "other"]);
        // Two loads, a figure each.
        for round in 0..7 {
            let speed = f64::from(round + 1);
            suite.round(&[true, false], |v, first| match v {
                0 | 1 => Ok(vec![if first { speed } else { 1.0 }]),
                2 | 3 => Ok(vec![if first { speed * 2.0 } else { 2.0 }]),
                _ if round == 5 && !first => Err("broken".to_owned()),
                _ => Ok(vec![if first { speed * 4.0 } else { 2.0 }]),
            });
        }
        suite
    }

    #[test]
    fn more_and_less_are_told_apart() {
        let (speed, time) = (suite().rows(0), suite().rows(1));
        let word = |c: &Option<Compared>| c.map(|c| c.word);
        assert_eq!(word(&speed[2].to_baseline), Some(Word::Better));
        assert_eq!(word(&time[2].to_baseline), Some(Word::Worse));
        assert_eq!(word(&speed[4].ours_to_it), Some(Word::Worse));
        assert_eq!(word(&time[4].ours_to_it), Some(Word::Hidden));
        assert_eq!(word(&speed[1].to_baseline), Some(Word::Noise));
        assert_eq!(word(&speed[3].ours_to_it), Some(Word::Noise));
        assert_eq!(speed[4].ours_to_it.map(|c| (c.judged.ratio.median, c.judged.rounds)), Some((0.5, 6)));
    }

    #[test]
    fn failures_are_told_with_their_round() {
        assert_eq!(suite().failures(), ["s: other, round 5: broken"]);
        assert_eq!(suite().rivals(), [0, 4]);
    }
}
