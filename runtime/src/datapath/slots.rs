//! Slots of `RULES`: the generations in force.

use std::collections::{BTreeSet, HashMap};

use runtime_common::maps::MAX_RULES;

use super::DatapathError;

/// Which slot of `RULES` holds which generation.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: HashMap<u64, u32>,
    free: BTreeSet<u32>,
    next: u32,
}

impl Slots {
    /// The slot of a generation.
    pub fn of(&self, generation: u64) -> Option<u32> {
        self.of.get(&generation).copied()
    }

    /// All that have one.
    pub fn generations(&self) -> impl Iterator<Item = u64> {
        self.of.keys().copied()
    }

    /// Those that no generation has, the lowest first.
    pub fn unused(&self) -> impl Iterator<Item = u32> {
        self.free.iter().copied().chain(self.next..MAX_RULES as u32)
    }

    /// Whether all slots from this one on are unused.
    pub fn is_beyond(&self, slot: u32) -> bool {
        slot >= self.next
    }

    /// Takes over what a predecessor gave.
    pub fn adopt(&mut self, generation: u64, slot: u32) {
        if self.of.contains_key(&generation) {
            return;
        }
        self.free.extend(self.next..slot);
        self.next = self.next.max(slot + 1);
        self.free.remove(&slot);
        self.of.insert(generation, slot);
    }

    /// Gives a slot to a generation that has none.
    pub fn take(&mut self, generation: u64) -> Result<u32, DatapathError> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if (self.next as usize) < MAX_RULES => {
                self.next += 1;
                self.next - 1
            }
            None => return Err(DatapathError::Full { map: "RULES", size: MAX_RULES }),
        };
        self.of.insert(generation, slot);
        Ok(slot)
    }

    /// Takes it back.
    pub fn release(&mut self, generation: u64) {
        if let Some(slot) = self.of.remove(&generation) {
            self.free.insert(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_generation_keeps_its_slot_and_a_released_one_is_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(10).unwrap(), slots.take(11).unwrap(), slots.take(12).unwrap()), (0, 1, 2));
        slots.release(11);
        assert_eq!(slots.take(13).unwrap(), 1);
        assert_eq!(slots.of[&12], 2);
    }

    #[test]
    fn adopted_slots_are_not_given_out_again() {
        let mut slots = Slots::default();
        slots.adopt(10, 3);
        slots.adopt(11, 1);
        assert_eq!(slots.unused().take(4).collect::<Vec<_>>(), [0, 2, 4, 5]);
        assert!(slots.is_beyond(4) && !slots.is_beyond(2));
        let taken: Vec<u32> = (20..24).map(|g| slots.take(g).unwrap()).collect();
        assert_eq!(taken, [0, 2, 4, 5]);
    }
}
