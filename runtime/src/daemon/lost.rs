//! What somebody has taken away by hand, as `status` tells of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long `status` tells of what was put back.
const TOLD: Duration = Duration::from_secs(600);
/// What was gone, and what became of it.
#[derive(Default)]
pub(super) struct Lost {
    /// With the time at which it was.
    pub put_back: VecDeque<(Instant, String)>,
    /// Why something cannot be put back.
    pub trouble: Option<String>,
    /// Found, and not put back yet.
    pub pending: Vec<String>,
}

impl Lost {
    /// Lines for `status`.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let recent = self.put_back.iter().filter(|(when, _)| when.elapsed() < TOLD);
        let told = recent.map(|(when, what)| format!("{what}; put back {} s ago", when.elapsed().as_secs()));
        self.trouble.iter().cloned().chain(told)
    }
}
