//! Lists of sources in the kernel: each is written once for all publications that name it, and goes with the last of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use runtime_common::Addr;
use runtime_common::maps::{FilterKey, MAX_FILTERS};

use super::table::{Looked, Operations, check_size, is};
use super::{DatapathError, map_error};
use crate::failpoint;

/// A list of sources: `FILTER_*` by prefix, and its length in bits of an [`Addr`].
pub type Sources = BTreeMap<(Addr, u32), u32>;

/// A prefix of a list.
type Prefix = (FilterKey, u32);

/// Every prefix in the trie begins with a whole number of a list.
const LIST_BITS: u32 = 64;

/// `FILTERS`, with what it holds.
pub(super) struct Filters {
    map: LpmTrie<MapData, FilterKey, u32>,
    holds: BTreeMap<Prefix, u32>,
    /// Lists that anything is there of.
    lists: BTreeSet<u64>,
    /// Lists that are there in full. What a number stands for never changes.
    whole: HashSet<u64>,
    looked: Looked<Prefix>,
}

impl Filters {
    /// Takes over what a predecessor left.
    pub fn adopt(map: LpmTrie<MapData, FilterKey, u32>) -> Result<Self, DatapathError> {
        let entries = map.iter().map(|e| e.map(|(key, value)| ((key.data(), key.prefix_len() - LIST_BITS), value)));
        let holds: BTreeMap<Prefix, u32> =
            entries.collect::<Result<_, MapError>>().map_err(|e| map_error("FILTERS", &e))?;
        let lists = holds.keys().map(|(key, _)| key.list).collect();
        Ok(Filters { map, holds, lists, whole: HashSet::new(), looked: Looked::default() })
    }

    /// Whether there is room for these lists beside those of before.
    pub fn check_size(&self, wanted: &BTreeMap<u64, Arc<Sources>>) -> Result<(), DatapathError> {
        let going = self.lists.iter().filter(|list| !wanted.contains_key(list));
        let going: usize = going.map(|list| self.of(*list).len()).sum();
        check_size("FILTERS", wanted.values().map(|s| s.len()).sum::<usize>() + going, MAX_FILTERS)
    }

    /// Writes lists, before the publications that name them.
    pub fn write(&mut self, wanted: &BTreeMap<u64, Arc<Sources>>, ops: &mut Operations) -> Result<(), DatapathError> {
        for (list, sources) in wanted {
            if self.whole.contains(list) {
                continue;
            }
            self.lists.insert(*list);
            for ((addr, bits), value) in sources.iter() {
                let prefix = (FilterKey { list: *list, addr: *addr }, *bits);
                if self.holds.get(&prefix) != Some(value) {
                    failpoint::step();
                    self.map.insert(&trie_key(&prefix), value, 0).map_err(|e| map_error("FILTERS", &e))?;
                    self.holds.insert(prefix, *value);
                    ops.written += 1;
                }
            }
            for prefix in self.of(*list) {
                if !sources.contains_key(&(prefix.0.addr, prefix.1)) {
                    self.remove(&prefix, ops)?;
                }
            }
            self.whole.insert(*list);
        }
        Ok(())
    }

    /// Removes all lists but these, after the publications that named them.
    pub fn keep_only(
        &mut self,
        wanted: &BTreeMap<u64, Arc<Sources>>,
        ops: &mut Operations,
    ) -> Result<(), DatapathError> {
        let gone: Vec<u64> = self.lists.iter().filter(|list| !wanted.contains_key(list)).copied().collect();
        for list in gone {
            self.whole.remove(&list);
            for prefix in self.of(list) {
                self.remove(&prefix, ops)?;
            }
            self.lists.remove(&list);
        }
        Ok(())
    }

    /// Writes anew what somebody has deleted or changed of the next part; how many entries that were.
    pub fn put_back(&mut self) -> Result<usize, DatapathError> {
        let mut lost = 0;
        for (prefix, value) in self.looked.part(&self.holds) {
            let key = trie_key(&prefix);
            if is(self.map.get(&key, 0), |found| found == value, "FILTERS")? {
                continue;
            }
            failpoint::step();
            self.map.insert(&key, value, 0).map_err(|e| map_error("FILTERS", &e))?;
            lost += 1;
        }
        Ok(lost)
    }

    /// What there is of a list.
    fn of(&self, list: u64) -> Vec<Prefix> {
        let first = (FilterKey { list, addr: Addr::default() }, 0);
        self.holds.range(first..).map(|(prefix, _)| *prefix).take_while(|(key, _)| key.list == list).collect()
    }

    fn remove(&mut self, prefix: &Prefix, ops: &mut Operations) -> Result<(), DatapathError> {
        failpoint::step();
        match self.map.remove(&trie_key(prefix)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(map_error("FILTERS", &e)),
        }
        self.holds.remove(prefix);
        ops.removed += 1;
        Ok(())
    }
}

fn trie_key((key, bits): &Prefix) -> Key<FilterKey> {
    Key::new(LIST_BITS + bits, *key)
}
