//! A table of what is not as it has to be.

use std::fmt;

use super::Outcome;
use super::case::{Case, Why};
use crate::{Counters, Lab};

/// What is not as it has to be.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
    counters: String,
}

#[derive(Debug)]
struct Row {
    case: Case,
    what: String,
    outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Docker alone does not do what the case rests on.
    pub(super) fn vacuous(&mut self, case: &Case, alone: &Outcome) {
        let what = format!("with Docker alone it is to be {:?}", case.alone);
        self.rows.push(Row { case: *case, what, outcomes: vec![("alone", alone.clone())] });
    }

    /// It differs, or does not although it is known to.
    pub(super) fn differs(&mut self, case: &Case, alone: &Outcome, served: &Outcome, why: Option<Why>) {
        let what = match why {
            None => "they differ, and no reason is known".to_owned(),
            Some(why) if alone == served => format!("they agree: take it off the list of differences ({why:?})"),
            Some(why) => format!("they differ otherwise than the list has it ({why:?})"),
        };
        let outcomes = vec![("alone", alone.clone()), ("served", served.clone())];
        self.rows.push(Row { case: *case, what, outcomes });
    }

    /// It is not after `down` as it was before `up`.
    pub(super) fn remains(&mut self, case: &Case, before: &Outcome, after: &Outcome) {
        let what = "after `down` it is not as before `up`".to_owned();
        self.rows.push(Row { case: *case, what, outcomes: vec![("before", before.clone()), ("after", after.clone())] });
    }

    /// What the datapath counted, for whoever looks for the cause.
    pub(super) fn counters(&mut self, lab: &Lab) {
        let moved = lab.counters().decided().since(&Counters::default());
        self.counters = moved.to_string();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "  {}  [{}]\n    {}", row.case.name, row.case.dial, row.what)?;
            for (when, outcome) in &row.outcomes {
                writeln!(f, "    {when:<8}{outcome}")?;
            }
        }
        write!(f, "  counted: {}", self.counters)
    }
}
