//! What somebody takes away by hand: found within seconds, told of, and put back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tracing::warn;

use super::world::World;

/// How long `status` tells of what was put back.
const TOLD: Duration = Duration::from_secs(600);
/// Of how many things.
const KEPT: usize = 64;

/// What was gone, and what became of it.
#[derive(Default)]
pub(super) struct Lost {
    put_back: VecDeque<(Instant, String)>,
    /// Why something cannot be put back.
    trouble: Option<String>,
    /// Found, and not put back yet.
    pending: Vec<String>,
}

impl Lost {
    /// Lines for `status`.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let recent = self.put_back.iter().filter(|(when, _)| when.elapsed() < TOLD);
        let told = recent.map(|(when, what)| format!("{what}; put back {} s ago", when.elapsed().as_secs()));
        self.trouble.iter().cloned().chain(told)
    }
}

impl World {
    /// Looks for what is gone, and puts it back.
    pub(super) async fn watch(&mut self) {
        let lost = match self.datapath.find_lost() {
            Ok(lost) => {
                self.lost.trouble = None;
                lost
            }
            Err(e) => {
                let trouble = Some(e.to_string());
                if self.lost.trouble != trouble {
                    warn!("{e}");
                }
                self.lost.trouble = trouble;
                return;
            }
        };
        for what in &lost {
            warn!("{what}: it is put back");
        }
        self.lost.pending.extend(lost);
        if self.lost.pending.is_empty() {
            return;
        }
        self.dirty = true;
        self.reconcile().await;
        // What the kernel has refused is tried again with the next look.
        if self.refused.is_none() {
            let now = Instant::now();
            self.lost.put_back.extend(self.lost.pending.drain(..).map(|what| (now, what)));
            let too_many = self.lost.put_back.len().saturating_sub(KEPT);
            self.lost.put_back.drain(..too_many);
        }
    }
}
