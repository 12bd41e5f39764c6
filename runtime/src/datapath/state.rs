//! The maps that say what is published, linked and connected: adopted once, then kept as desired by differences.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use runtime_common::Addr;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, Address, Endpoint, FilterKey, Flow, Limit, Link, LinkKey, MAX_ADDRESSES, MAX_ENDPOINTS,
    MAX_LIMITS, MAX_LINKS, MAX_PREFIXES, MAX_PUBLICATIONS, MAX_UNSERVED, MAX_UPLINKS, Publication, PublicationKey,
    Uplink, address_bit, port_bit,
};

use super::bits::Bits;
use super::filters::{Filters, Sources};
use super::hook::{HookStatus, Role};
use super::published::{self, Published};
use super::slots::Slots;
use super::standing::Standing;
use super::table::{Differences, Looked, Operations, Table, check_size, write_elements};
use super::{DatapathError, map_error};
use crate::failpoint;

/// What the maps are to say. In all values `rule` is left 0: slots are this module's affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Containers by host-side interface.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// What each address belongs to.
    pub addresses: BTreeMap<Addr, Address>,
    /// What addresses that are not among these belong to: `PREFIX_*` by prefix, and its length in bits of an [`Addr`].
    pub prefixes: BTreeMap<(Addr, u32), u32>,
    /// Interfaces that lead to the outside.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// Interfaces that lead to the outside and have no program.
    pub unserved: BTreeMap<u32, u32>,
    /// Published ports, by container. One that is the very same as before is not looked into.
    pub published: Vec<Arc<Published>>,
    /// Open ports of links.
    pub links: BTreeMap<LinkKey, Link>,
}

impl Desired {
    /// All published ports, in the order of their keys.
    pub fn publications(&self) -> Vec<(PublicationKey, Publication)> {
        published::all_of(&self.published)
    }
}

/// The maps of this module.
pub(super) struct Maps {
    pub rules: Array<MapData, u64>,
    pub held_by_rule: Array<MapData, u64>,
    pub endpoints: HashMap<MapData, u32, Endpoint>,
    pub addresses: HashMap<MapData, Addr, Address>,
    pub uplinks: HashMap<MapData, u32, Uplink>,
    pub unserved: HashMap<MapData, u32, u32>,
    pub publications: HashMap<MapData, PublicationKey, Publication>,
    pub ports: Bits,
    pub address_bits: Bits,
    pub prefixes: LpmTrie<MapData, Addr, u32>,
    pub filters: LpmTrie<MapData, FilterKey, u32>,
    pub limits: HashMap<MapData, u64, Limit>,
    pub links: HashMap<MapData, LinkKey, Link>,
}

/// `PREFIX_*` by prefix and its length.
type Prefixes = BTreeMap<(Addr, u32), u32>;

/// The maps with what they hold: this daemon is their only writer.
pub(super) struct State {
    pub(super) rules: Array<MapData, u64>,
    held_by_rule: Array<MapData, u64>,
    pub(super) endpoints: Table<u32, Endpoint>,
    pub(super) addresses: Table<Addr, Address>,
    pub(super) uplinks: Table<u32, Uplink>,
    pub(super) unserved: Table<u32, u32>,
    pub(super) publications: Table<PublicationKey, Publication>,
    pub(super) ports: Bits,
    pub(super) address_bits: Bits,
    pub(super) links: Table<LinkKey, Link>,
    pub(super) prefixes: (LpmTrie<MapData, Addr, u32>, Prefixes),
    pub(super) filters: Filters,
    pub(super) limits: (HashMap<MapData, u64, Limit>, BTreeMap<u64, u32>),
    pub(super) looked_prefixes: Looked<(Addr, u32)>,
    pub(super) looked_limits: Looked<u64>,
    pub(super) slots: Slots,
    /// What publications, filters and limits were last made to say in full; none where that failed.
    published: Option<Vec<Arc<Published>>>,
    /// Whether the last [`State::apply`] was carried out in full: then only what differs can have ended or be new.
    whole: bool,
    /// Generations that ended and whose peers have not been told yet.
    ended: BTreeSet<u64>,
}

/// What is to be done to publications and what belongs to them.
struct Publishing {
    publications: Differences<PublicationKey, Publication>,
    lists: BTreeMap<u64, Arc<Sources>>,
    limits: BTreeMap<u64, u32>,
}

impl State {
    /// Takes over what a predecessor left.
    pub fn adopt(maps: Maps) -> Result<Self, DatapathError> {
        let prefixes = maps.prefixes.iter();
        let prefixes = prefixes
            .map(|entry| entry.map(|(key, value)| ((key.data(), key.prefix_len()), value)))
            .collect::<Result<_, MapError>>()
            .map_err(|e| map_error("PREFIXES", &e))?;
        let limits = maps.limits.iter().map(|entry| entry.map(|(g, l)| (g, l.per_second)));
        let limits = limits.collect::<Result<_, MapError>>().map_err(|e| map_error("LIMITS", &e))?;
        let mut state = State {
            rules: maps.rules,
            held_by_rule: maps.held_by_rule,
            endpoints: Table::adopt("ENDPOINTS", MAX_ENDPOINTS, maps.endpoints)?,
            addresses: Table::adopt("ADDRESSES", MAX_ADDRESSES, maps.addresses)?,
            uplinks: Table::adopt("UPLINKS", MAX_UPLINKS, maps.uplinks)?,
            unserved: Table::adopt("UNSERVED", MAX_UNSERVED, maps.unserved)?,
            publications: Table::adopt("PUBLICATIONS", MAX_PUBLICATIONS, maps.publications)?,
            ports: maps.ports,
            address_bits: maps.address_bits,
            links: Table::adopt("LINKS", MAX_LINKS, maps.links)?,
            prefixes: (maps.prefixes, prefixes),
            filters: Filters::adopt(maps.filters)?,
            limits: (maps.limits, limits),
            looked_prefixes: Looked::default(),
            looked_limits: Looked::default(),
            slots: Slots::default(),
            published: None,
            whole: false,
            ended: BTreeSet::new(),
        };
        let endpoints = state.endpoints.holds.values_mut().map(|e| (&mut e.generation, &mut e.rule));
        let publications = state.publications.holds.values_mut().map(|p| (&mut p.generation, &mut p.rule));
        let links = state.links.holds.values_mut().map(|l| (&mut l.generation, &mut l.rule));
        for (generation, rule) in endpoints.chain(publications).chain(links) {
            let slot = std::mem::take(rule);
            if state.rules.get(&slot, 0).is_ok_and(|in_force| in_force == *generation) {
                state.slots.adopt(*generation, slot);
            } else {
                // A predecessor was killed when it had ended the rule, and the entry was to go or to change: as none that is
                // wanted, it goes; where it is wanted still, it is written anew.
                *generation = 0;
            }
        }
        state.end_unnamed()?;
        Ok(state)
    }

    /// Ends rules that no entry names: a predecessor was killed when it had begun them, and before what they are for was there.
    fn end_unnamed(&mut self) -> Result<(), DatapathError> {
        let mut unnamed = Vec::new();
        // The lowest free slots are given first: behind the last one that is in use there are none but such.
        for slot in self.slots.unused() {
            match self.rules.get(&slot, 0).map_err(|e| map_error("RULES", &e))? {
                0 if self.slots.is_beyond(slot) => break,
                0 => {}
                _ => unnamed.push((slot, 0)),
            }
        }
        write_elements("RULES", &mut self.rules, &unnamed)
    }

    /// The generations in force, by slot.
    pub fn rules(&self) -> &Array<MapData, u64> {
        &self.rules
    }

    /// How many conversations each of them has, by slot: the kernel side counts.
    pub fn held_by_rule(&self) -> &Array<MapData, u64> {
        &self.held_by_rule
    }

    /// Slot of a rule that is in force.
    pub fn slot(&self, generation: u64) -> Option<u32> {
        self.slots.of(generation)
    }

    /// The generation of what a flow needs and is gone; none where all of it stands.
    pub fn ended_rule(&self, flow: &Flow) -> Option<u64> {
        let rules = [(flow.rule, flow.generation), (flow.client_rule, flow.client_generation)];
        let needed = rules.into_iter().enumerate().filter(|(n, (_, generation))| *n == 0 || *generation != 0);
        needed.map(|(_, rule)| rule).find(|(slot, generation)| self.slot(*generation) != Some(*slot)).map(|(_, g)| g)
    }

    /// See [`super::Datapath::standing`].
    pub fn standing(&self, hooks: &[HookStatus], roles: &BTreeMap<u32, Role>) -> Standing {
        Standing::read(self.publications.map(), self.endpoints.map(), &self.rules, hooks, roles)
    }

    /// Adds generations that are known to have ended.
    pub fn add_ended(&mut self, generations: impl IntoIterator<Item = u64>) {
        self.ended.extend(generations);
    }

    /// The generations that ended since this was last asked.
    pub fn take_ended(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.ended)
    }

    /// Makes the maps say `desired`. On an error what is done stays done, and the next call goes on from there.
    pub fn apply(&mut self, desired: &Desired) -> Result<Operations, DatapathError> {
        let mut publishing = self.publishing(desired);
        self.check_sizes(desired, publishing.as_ref())?;
        let was_whole = std::mem::take(&mut self.whole);
        if publishing.is_some() {
            self.published = None;
        }
        let fewer = !was_whole || publishing.as_ref().is_some_and(|p| !p.publications.gone.is_empty());
        let mut ops = Operations::default();
        let endpoints = self.endpoints.differences(&desired.endpoints);
        let links = self.links.differences(&desired.links);
        let addresses = self.addresses.differences(&desired.addresses);
        let uplinks = self.uplinks.differences(&desired.uplinks);
        let unserved = self.unserved.differences(&desired.unserved);

        // End the flows of what goes before anything that replaces it is there.
        let mut gone: HashSet<u64> = match was_whole {
            true => {
                let endpoints = endpoints.old.iter().map(|(_, e)| e.generation);
                let publications = publishing.iter().flat_map(|p| &p.publications.old).map(|(_, p)| p.generation);
                endpoints.chain(publications).chain(links.old.iter().map(|(_, l)| l.generation)).collect()
            }
            false => self.slots.generations().collect(),
        };
        if !gone.is_empty() {
            self.generations(desired, publishing.as_ref(), |g| {
                gone.remove(&g);
            });
        }
        ops.ended = self.end(gone)?;
        self.links.remove(&links, &mut ops)?;
        if let Some(p) = &publishing {
            self.publications.remove(&p.publications, &mut ops)?;
        }
        self.uplinks.remove(&uplinks, &mut ops)?;
        self.unserved.remove(&unserved, &mut ops)?;
        self.addresses.remove(&addresses, &mut ops)?;
        self.endpoints.remove(&endpoints, &mut ops)?;

        let new = endpoints.new.iter().map(|(_, e)| e.generation);
        let new = new.chain(publishing.iter().flat_map(|p| &p.publications.new).map(|(_, p)| p.generation));
        self.begin(new.chain(links.new.iter().map(|(_, l)| l.generation)))?;
        if let Some(p) = &publishing {
            self.write_conditions(p, &mut ops)?;
            // While both are there: what goes, and what comes.
            self.ports.set(port_bits(p.publications.new.iter().map(|(key, _)| key)))?;
        }
        let moved = !was_whole || !addresses.new.is_empty() || !addresses.gone.is_empty();
        if moved {
            self.address_bits.set(address_bits(&desired.addresses))?;
        }
        self.write_prefixes(&desired.prefixes, &mut ops)?;
        let slots = &self.slots;
        let rule = |generation| slots.of(generation).unwrap_or_default();
        // Addresses before endpoints: a container that is opened finds its siblings known as such.
        self.addresses.write(addresses, &mut ops, |a| *a)?;
        self.uplinks.write(uplinks, &mut ops, |u| *u)?;
        self.unserved.write(unserved, &mut ops, |u| *u)?;
        if let Some(p) = &mut publishing {
            let publications = std::mem::take(&mut p.publications);
            self.publications.write(publications, &mut ops, |p| Publication { rule: rule(p.generation), ..*p })?;
        }
        self.links.write(links, &mut ops, |l| Link { rule: rule(l.generation), ..*l })?;
        self.endpoints.write(endpoints, &mut ops, |e| Endpoint { rule: rule(e.generation), ..*e })?;
        if let Some(p) = &publishing {
            if fewer {
                self.ports.set_only(port_bits(self.publications.holds.keys()))?;
            }
            self.remove_conditions(p, &mut ops)?;
            self.published = Some(desired.published.clone());
        }
        if moved {
            self.address_bits.set_only(address_bits(&desired.addresses))?;
        }
        self.whole = true;
        Ok(ops)
    }

    /// What is to be published; none where it is the very same as before.
    fn publishing(&self, desired: &Desired) -> Option<Publishing> {
        let same = |before: &Vec<Arc<Published>>| {
            before.len() == desired.published.len()
                && before.iter().zip(&desired.published).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if self.published.as_ref().is_some_and(same) {
            return None;
        }
        Some(Publishing {
            publications: published::differences(
                &self.publications.holds,
                self.published.as_deref(),
                &desired.published,
            ),
            lists: desired.published.iter().flat_map(|p| p.lists.iter().map(|(k, v)| (*k, v.clone()))).collect(),
            limits: desired.published.iter().flat_map(|p| p.limits.iter().map(|(k, v)| (*k, *v))).collect(),
        })
    }

    fn check_sizes(&self, desired: &Desired, publishing: Option<&Publishing>) -> Result<(), DatapathError> {
        if let Some(p) = publishing {
            check_size("PUBLICATIONS", self.publications.len_after(&p.publications), MAX_PUBLICATIONS)?;
            self.filters.check_size(&p.lists)?;
            let before = self.limits.1.keys().filter(|g| !p.limits.contains_key(g)).count();
            check_size("LIMITS", p.limits.len() + before, MAX_LIMITS)?;
        }
        check_size("LINKS", desired.links.len(), MAX_LINKS)?;
        check_size("ENDPOINTS", desired.endpoints.len(), MAX_ENDPOINTS)?;
        check_size("ADDRESSES", desired.addresses.len(), MAX_ADDRESSES)?;
        check_size("PREFIXES", desired.prefixes.len(), MAX_PREFIXES)?;
        check_size("UPLINKS", desired.uplinks.len(), MAX_UPLINKS)?;
        check_size("UNSERVED", desired.unserved.len(), MAX_UNSERVED)?;
        Ok(())
    }

    /// Every generation that is to be in force; some more than once.
    fn generations(&self, desired: &Desired, publishing: Option<&Publishing>, mut each: impl FnMut(u64)) {
        desired.endpoints.values().for_each(|e| each(e.generation));
        desired.links.values().for_each(|l| each(l.generation));
        let none = Differences::default();
        let changes = publishing.map_or(&none, |p| &p.publications);
        self.publications.kept(changes).chain(changes.new.iter().map(|(_, p)| p)).for_each(|p| each(p.generation));
    }

    /// Ends all flows of these generations.
    fn end(&mut self, gone: HashSet<u64>) -> Result<usize, DatapathError> {
        let mut slots: Vec<(u32, u64)> = gone.iter().filter_map(|g| Some((self.slots.of(*g)?, *g))).collect();
        slots.sort_unstable();
        // An error in between: slots that are cleared and not released are cleared again by the next call.
        write_elements("RULES", &mut self.rules, &slots.iter().map(|(slot, _)| (*slot, 0)).collect::<Vec<_>>())?;
        for (_, generation) in &slots {
            self.slots.release(*generation);
            self.ended.insert(*generation);
        }
        Ok(slots.len())
    }

    /// Gives these generations slots, where they have none.
    fn begin(&mut self, generations: impl Iterator<Item = u64>) -> Result<(), DatapathError> {
        let mut begun = Vec::new();
        let mut new: Vec<u64> = generations.filter(|g| self.slots.of(*g).is_none()).collect();
        new.sort_unstable();
        new.dedup();
        let result = new.into_iter().try_for_each(|generation| {
            begun.push((self.slots.take(generation)?, generation));
            Ok(())
        });
        // The conversations of who had the slot before are nobody's any more, and are not counted back.
        let none: Vec<_> = begun.iter().map(|(slot, _)| (*slot, 0)).collect();
        let result = result.and_then(|()| write_elements("HELD_BY_RULE", &mut self.held_by_rule, &none));
        let result = result.and_then(|()| write_elements("RULES", &mut self.rules, &begun));
        if result.is_err() {
            // Not known to be written: to be done again, and not taken for rules that have ended.
            begun.iter().for_each(|(_, generation)| self.slots.release(*generation));
        }
        result
    }

    /// What comes before what goes: a prefix that changes is never without its meaning.
    fn write_prefixes(&mut self, wanted: &Prefixes, ops: &mut Operations) -> Result<(), DatapathError> {
        let (map, holds) = &mut self.prefixes;
        for (key, value) in wanted {
            if holds.get(key) != Some(value) {
                failpoint::step();
                map.insert(&Key::new(key.1, key.0), value, 0).map_err(|e| map_error("PREFIXES", &e))?;
                holds.insert(*key, *value);
                ops.written += 1;
            }
        }
        let gone: Vec<_> = holds.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            failpoint::step();
            match map.remove(&Key::new(key.1, key.0)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("PREFIXES", &e)),
            }
            holds.remove(&key);
            ops.removed += 1;
        }
        Ok(())
    }

    /// Filters and limits, before the publications that they belong to.
    fn write_conditions(&mut self, wanted: &Publishing, ops: &mut Operations) -> Result<(), DatapathError> {
        self.filters.write(&wanted.lists, ops)?;
        let (map, holds) = &mut self.limits;
        for (generation, rate) in &wanted.limits {
            if holds.get(generation) != Some(rate) {
                failpoint::step();
                map.insert(generation, Limit::full(*rate), 0).map_err(|e| map_error("LIMITS", &e))?;
                holds.insert(*generation, *rate);
                ops.written += 1;
            }
        }
        Ok(())
    }

    /// Filters and limits, after the publications that they belonged to.
    fn remove_conditions(&mut self, wanted: &Publishing, ops: &mut Operations) -> Result<(), DatapathError> {
        self.filters.keep_only(&wanted.lists, ops)?;
        let (map, holds) = &mut self.limits;
        let gone: Vec<_> = holds.keys().filter(|k| !wanted.limits.contains_key(k)).copied().collect();
        for generation in gone {
            failpoint::step();
            match map.remove(&generation) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("LIMITS", &e)),
            }
            holds.remove(&generation);
            ops.removed += 1;
        }
        Ok(())
    }
}

/// What `PORTS` is to say of these.
fn port_bits<'a>(keys: impl Iterator<Item = &'a PublicationKey>) -> impl Iterator<Item = (u32, u64)> {
    keys.map(|key| port_bit(u16::from_be(key.port), key.protocol))
}

/// What `ADDRESS_BITS` is to say of these.
fn address_bits(all: &BTreeMap<Addr, Address>) -> impl Iterator<Item = (u32, u64)> {
    let of_containers = all.iter().filter(|(_, a)| a.kind == ADDRESS_ENDPOINT).map(|(addr, _)| address_bit(addr, true));
    all.keys().map(|addr| address_bit(addr, false)).chain(of_containers)
}
