//! The maps that say what is published, linked and connected: adopted once, then kept as desired by differences.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use runtime_common::Addr;
use runtime_common::maps::{
    Address, Endpoint, FilterKey, Limit, Link, LinkKey, MAX_ADDRESSES, MAX_ENDPOINTS, MAX_FILTERS, MAX_LIMITS,
    MAX_LINKS, MAX_PUBLICATIONS, MAX_RULES, Publication, PublicationKey,
};

use super::{AddressMap, DatapathError, EndpointMap, LinkMap, PublicationMap, map_error};

/// What the maps are to say. In all values `rule` is left 0: slots are this module's affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Containers by host-side interface.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// What each address belongs to.
    pub addresses: BTreeMap<Addr, Address>,
    /// Published ports.
    pub publications: BTreeMap<PublicationKey, Publication>,
    /// Sources that filtered publications name, by prefix and its length in bits of the address; `FILTER_*`.
    pub filters: BTreeMap<(FilterKey, u32), u32>,
    /// New conversations in a second, by the generation of limited publications.
    pub limits: BTreeMap<u64, u32>,
    /// Open ports of links.
    pub links: BTreeMap<LinkKey, Link>,
}

/// What [`State::apply`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Entries written.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
    /// Rules whose flows were ended.
    pub ended: usize,
}

/// The maps of this module.
pub(super) struct Maps {
    pub rules: Array<MapData, u64>,
    pub endpoints: EndpointMap,
    pub addresses: AddressMap,
    pub publications: PublicationMap,
    pub filters: LpmTrie<MapData, FilterKey, u32>,
    pub limits: HashMap<MapData, u64, Limit>,
    pub links: LinkMap,
}

/// The maps with what they hold: this daemon is their only writer.
pub(super) struct State {
    maps: Maps,
    current: Desired,
    slots: Slots,
    /// Generations that ended and whose peers have not been told yet.
    ended: BTreeSet<u64>,
}

impl State {
    /// Takes over what a predecessor left.
    pub fn adopt(maps: Maps) -> Result<Self, DatapathError> {
        let mut current = Desired {
            endpoints: read("ENDPOINTS", &maps.endpoints)?,
            addresses: read("ADDRESSES", &maps.addresses)?,
            publications: read("PUBLICATIONS", &maps.publications)?,
            filters: maps
                .filters
                .iter()
                .map(|entry| entry.map(|(key, value)| ((key.data(), key.prefix_len() - GENERATION_BITS), value)))
                .collect::<Result<_, MapError>>()
                .map_err(|e| map_error("FILTERS", &e))?,
            limits: read("LIMITS", &maps.limits)?.into_iter().map(|(g, l): (u64, Limit)| (g, l.per_second)).collect(),
            links: read("LINKS", &maps.links)?,
        };
        let mut slots = Slots::default();
        for (generation, rule) in rules_mut(&mut current) {
            slots.adopt(generation, std::mem::take(rule));
        }
        Ok(State { maps, current, slots, ended: BTreeSet::new() })
    }

    /// Slot of a rule that is in force.
    pub fn slot(&self, generation: u64) -> Option<u32> {
        self.slots.of.get(&generation).copied()
    }

    /// Whether a slot holds that generation.
    pub fn is_live(&self, slot: u32, generation: u64) -> bool {
        self.slot(generation) == Some(slot)
    }

    /// The generations that ended since this was last asked.
    pub fn take_ended(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.ended)
    }

    /// Makes the maps say `desired`. On an error what is done stays done, and the next call goes on from there.
    pub fn apply(&mut self, desired: &Desired) -> Result<Operations, DatapathError> {
        let mut ops = Operations::default();
        check_size("PUBLICATIONS", desired.publications.len(), MAX_PUBLICATIONS)?;
        check_size("FILTERS", desired.filters.len(), MAX_FILTERS)?;
        check_size("LIMITS", desired.limits.len(), MAX_LIMITS)?;
        check_size("LINKS", desired.links.len(), MAX_LINKS)?;
        check_size("ENDPOINTS", desired.endpoints.len(), MAX_ENDPOINTS)?;
        check_size("ADDRESSES", desired.addresses.len(), MAX_ADDRESSES)?;
        let wanted: BTreeSet<u64> = generations(desired).collect();
        check_size("RULES", wanted.len(), MAX_RULES)?;

        // End the flows of what goes before anything that replaces it is there.
        let gone: Vec<(u64, u32)> =
            self.slots.of.iter().filter(|(g, _)| !wanted.contains(g)).map(|(g, s)| (*g, *s)).collect();
        for (generation, slot) in gone {
            self.maps.rules.set(slot, 0u64, 0).map_err(|e| map_error("RULES", &e))?;
            self.slots.release(generation);
            self.ended.insert(generation);
            ops.ended += 1;
        }
        remove("LINKS", &mut self.maps.links, &mut self.current.links, &desired.links, &mut ops)?;
        remove(
            "PUBLICATIONS",
            &mut self.maps.publications,
            &mut self.current.publications,
            &desired.publications,
            &mut ops,
        )?;
        remove("ADDRESSES", &mut self.maps.addresses, &mut self.current.addresses, &desired.addresses, &mut ops)?;
        remove("ENDPOINTS", &mut self.maps.endpoints, &mut self.current.endpoints, &desired.endpoints, &mut ops)?;
        for generation in wanted {
            if self.slot(generation).is_none() {
                let slot = self.slots.take(generation)?;
                self.maps.rules.set(slot, generation, 0).map_err(|e| map_error("RULES", &e))?;
            }
        }
        self.write_conditions(desired, &mut ops)?;
        let slots = &self.slots;
        let rule = |generation| slots.of.get(&generation).copied().unwrap_or_default();
        // Addresses before endpoints: a container that is opened finds its siblings known as such.
        write("ADDRESSES", &mut self.maps.addresses, &mut self.current.addresses, &desired.addresses, &mut ops, |a| {
            *a
        })?;
        write(
            "PUBLICATIONS",
            &mut self.maps.publications,
            &mut self.current.publications,
            &desired.publications,
            &mut ops,
            |p| Publication { rule: rule(p.generation), ..*p },
        )?;
        write("LINKS", &mut self.maps.links, &mut self.current.links, &desired.links, &mut ops, |l| Link {
            rule: rule(l.generation),
            ..*l
        })?;
        write("ENDPOINTS", &mut self.maps.endpoints, &mut self.current.endpoints, &desired.endpoints, &mut ops, |e| {
            Endpoint { rule: rule(e.generation), ..*e }
        })?;
        self.remove_conditions(desired, &mut ops)?;
        Ok(ops)
    }

    /// Filters and limits, before the publications that they belong to.
    fn write_conditions(&mut self, desired: &Desired, ops: &mut Operations) -> Result<(), DatapathError> {
        for (key, value) in &desired.filters {
            if self.current.filters.get(key) != Some(value) {
                self.maps.filters.insert(&trie_key(key), value, 0).map_err(|e| map_error("FILTERS", &e))?;
                self.current.filters.insert(*key, *value);
                ops.written += 1;
            }
        }
        for (generation, rate) in &desired.limits {
            if self.current.limits.get(generation) != Some(rate) {
                let full = Limit::full(*rate);
                self.maps.limits.insert(generation, full, 0).map_err(|e| map_error("LIMITS", &e))?;
                self.current.limits.insert(*generation, *rate);
                ops.written += 1;
            }
        }
        Ok(())
    }

    /// Filters and limits, after the publications that they belonged to.
    fn remove_conditions(&mut self, desired: &Desired, ops: &mut Operations) -> Result<(), DatapathError> {
        let gone: Vec<_> = self.current.filters.keys().filter(|k| !desired.filters.contains_key(k)).copied().collect();
        for key in gone {
            match self.maps.filters.remove(&trie_key(&key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("FILTERS", &e)),
            }
            self.current.filters.remove(&key);
            ops.removed += 1;
        }
        let gone: Vec<_> = self.current.limits.keys().filter(|k| !desired.limits.contains_key(k)).copied().collect();
        for generation in gone {
            match self.maps.limits.remove(&generation) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("LIMITS", &e)),
            }
            self.current.limits.remove(&generation);
            ops.removed += 1;
        }
        Ok(())
    }
}

/// Every prefix begins with a whole generation.
const GENERATION_BITS: u32 = 64;

fn trie_key((key, bits): &(FilterKey, u32)) -> Key<FilterKey> {
    Key::new(GENERATION_BITS + bits, *key)
}

fn generations(d: &Desired) -> impl Iterator<Item = u64> + '_ {
    d.endpoints
        .values()
        .map(|e| e.generation)
        .chain(d.publications.values().map(|p| p.generation))
        .chain(d.links.values().map(|l| l.generation))
}

fn rules_mut(d: &mut Desired) -> impl Iterator<Item = (u64, &mut u32)> {
    d.endpoints
        .values_mut()
        .map(|e| (e.generation, &mut e.rule))
        .chain(d.publications.values_mut().map(|p| (p.generation, &mut p.rule)))
        .chain(d.links.values_mut().map(|l| (l.generation, &mut l.rule)))
}

/// Which slot of `RULES` holds which generation.
#[derive(Debug, Default)]
struct Slots {
    of: BTreeMap<u64, u32>,
    free: BTreeSet<u32>,
    next: u32,
}

impl Slots {
    fn adopt(&mut self, generation: u64, slot: u32) {
        if self.of.contains_key(&generation) {
            return;
        }
        self.free.extend(self.next..slot);
        self.next = self.next.max(slot + 1);
        self.free.remove(&slot);
        self.of.insert(generation, slot);
    }

    fn take(&mut self, generation: u64) -> Result<u32, DatapathError> {
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

    fn release(&mut self, generation: u64) {
        if let Some(slot) = self.of.remove(&generation) {
            self.free.insert(slot);
        }
    }
}

fn check_size(map: &'static str, wanted: usize, size: usize) -> Result<(), DatapathError> {
    if wanted > size { Err(DatapathError::Full { map, size }) } else { Ok(()) }
}

fn read<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &HashMap<MapData, K, V>,
) -> Result<BTreeMap<K, V>, DatapathError> {
    map.iter().collect::<Result<_, MapError>>().map_err(|e| map_error(name, &e))
}

fn remove<K: Pod + Ord + Hash, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    current: &mut BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    ops: &mut Operations,
) -> Result<(), DatapathError> {
    let gone: Vec<K> = current.keys().filter(|k| !desired.contains_key(k)).copied().collect();
    for key in gone {
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(map_error(name, &e)),
        }
        current.remove(&key);
        ops.removed += 1;
    }
    Ok(())
}

fn write<K: Pod + Ord, V: Pod + PartialEq>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    current: &mut BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    ops: &mut Operations,
    with_rule: impl Fn(&V) -> V,
) -> Result<(), DatapathError> {
    for (key, value) in desired {
        if current.get(key) == Some(value) {
            continue;
        }
        map.insert(key, with_rule(value), 0).map_err(|e| map_error(name, &e))?;
        current.insert(*key, *value);
        ops.written += 1;
    }
    Ok(())
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
        let taken: Vec<u32> = (20..24).map(|g| slots.take(g).unwrap()).collect();
        assert_eq!(taken, [0, 2, 4, 5]);
    }
}
