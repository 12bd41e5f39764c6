//! Entries of maps that somebody deletes or changes by hand are found, and written anew: a part of large maps at a time.
//!
//! Entries that somebody adds are not looked for: what is linked and published needs a rule in force beside its entry.

use aya::maps::lpm_trie::Key;
use runtime_common::maps::{Endpoint, Limit, Link, Publication};

use super::state::State;
use super::table::{is, write_elements};
use super::{DatapathError, map_error};
use crate::failpoint;

impl State {
    /// Looks whether the kernel has what was written, and writes anew what it has not. A line for each map.
    pub fn put_back(&mut self) -> Result<Vec<String>, DatapathError> {
        let mut lines = Vec::new();
        let mut line = |map: &str, lost: usize| {
            lines.extend((lost > 0).then(|| match lost {
                1 => format!("an entry of the map {map} was gone or another"),
                _ => format!("{lost} entries of the map {map} were gone or others"),
            }));
        };
        let slots = &self.slots;
        let rule = |generation| slots.of(generation).unwrap_or_default();
        let mut generations = Vec::new();
        // As they are written: what is asked for first, before what leads to it.
        line(self.addresses.name(), self.addresses.put_back(|a| *a)?.1);
        line(self.uplinks.name(), self.uplinks.put_back(|u| *u)?.1);
        line(self.unserved.name(), self.unserved.put_back(|u| *u)?.1);
        let (part, lost) = self.publications.put_back(|p| Publication { rule: rule(p.generation), ..*p })?;
        line(self.publications.name(), lost);
        generations.extend(part.iter().map(|p| p.generation));
        let (part, lost) = self.links.put_back(|l| Link { rule: rule(l.generation), ..*l })?;
        line(self.links.name(), lost);
        generations.extend(part.iter().map(|l| l.generation));
        let (part, lost) = self.endpoints.put_back(|e| Endpoint { rule: rule(e.generation), ..*e })?;
        line(self.endpoints.name(), lost);
        generations.extend(part.iter().map(|e| e.generation));
        generations.sort_unstable();
        generations.dedup();
        let mut ended = Vec::new();
        for generation in generations {
            let Some(slot) = self.slots.of(generation) else { continue };
            if self.rules.get(&slot, 0).map_err(|e| map_error("RULES", &e))? != generation {
                ended.push((slot, generation));
            }
        }
        write_elements("RULES", &mut self.rules, &ended)?;
        line("RULES", ended.len());
        line(self.ports.name(), self.ports.put_back()?);
        line(self.address_bits.name(), self.address_bits.put_back()?);
        line("PREFIXES", self.put_back_prefixes()?);
        line("FILTERS", self.filters.put_back()?);
        line("LIMITS", self.put_back_limits()?);
        Ok(lines)
    }

    /// Of a trie the longest prefix is found that there is: where a longer one is gone, and the next one says the same, nothing
    /// is another.
    fn put_back_prefixes(&mut self) -> Result<usize, DatapathError> {
        let (map, holds) = &mut self.prefixes;
        let mut lost = 0;
        for ((addr, bits), value) in self.looked_prefixes.part(holds) {
            let key = Key::new(bits, addr);
            if is(map.get(&key, 0), |found| found == value, "PREFIXES")? {
                continue;
            }
            failpoint::step();
            map.insert(&key, value, 0).map_err(|e| map_error("PREFIXES", &e))?;
            lost += 1;
        }
        Ok(lost)
    }

    /// What a bucket has at the moment is the kernel's affair.
    fn put_back_limits(&mut self) -> Result<usize, DatapathError> {
        let (map, holds) = &mut self.limits;
        let mut lost = 0;
        for (generation, rate) in self.looked_limits.part(holds) {
            if is(map.get(&generation, 0), |found| found.per_second == rate, "LIMITS")? {
                continue;
            }
            failpoint::step();
            map.insert(generation, Limit::full(rate), 0).map_err(|e| map_error("LIMITS", &e))?;
            lost += 1;
        }
        Ok(lost)
    }
}
