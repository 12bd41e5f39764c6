//! What somebody takes away by hand: found within seconds, told of, and put back.

use std::time::Instant;

use tracing::warn;

use super::world::World;

/// Of how many things `status` tells.
const KEPT: usize = 64;

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
