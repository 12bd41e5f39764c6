//! What the kernel has of what is to be published, linked and served, in a form that two daemons' work can be compared by.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use runtime_common::Addr;
use runtime_common::maps::{
    ADDRESS_WORDS, Address, Endpoint, FilterKey, Limit, Link, LinkKey, PORT_WORDS, Publication, PublicationKey, Uplink,
};

/// Slots of `RULES` that are looked at: the lowest free one is given first, and few are needed.
const SLOTS: u32 = 512;

/// Every entry of the maps that userspace writes, a line each, without its generation and slot: these differ from one
/// daemon to the next.
///
/// # Errors
/// Where a map cannot be read; where an entry's rule has ended; where a rule is in force that no entry names.
pub fn state(pins: &Path) -> Result<BTreeSet<String>> {
    let maps = Maps(pins);
    let mut lines = BTreeSet::new();
    let mut named = HashSet::new();
    let mut line = |map: &str, key: &dyn Debug, value: &dyn Debug| {
        lines.insert(format!("{map} {key:?}: {value:?}"));
    };
    for (key, value) in maps.hash::<u32, Endpoint>("ENDPOINTS")? {
        named.insert((value.rule, value.generation));
        line("ENDPOINTS", &key, &Endpoint { generation: 0, rule: 0, ..value });
    }
    let mut lists = HashSet::new();
    for (key, value) in maps.hash::<PublicationKey, Publication>("PUBLICATIONS")? {
        lists.insert(value.list);
        named.insert((value.rule, value.generation));
        line("PUBLICATIONS", &key, &Publication { generation: 0, rule: 0, ..value });
    }
    for (key, value) in maps.hash::<LinkKey, Link>("LINKS")? {
        named.insert((value.rule, value.generation));
        line("LINKS", &key, &Link { generation: 0, rule: 0, ..value });
    }
    for (key, value) in maps.hash::<Addr, Address>("ADDRESSES")? {
        line("ADDRESSES", &key, &value);
    }
    for (key, value) in maps.hash::<u32, Uplink>("UPLINKS")? {
        line("UPLINKS", &key, &value);
    }
    for (key, value) in maps.hash::<u32, u32>("UNSERVED")? {
        line("UNSERVED", &key, &value);
    }
    let is_named = |generation: u64| named.iter().any(|(_, of)| *of == generation);
    for (key, value) in maps.hash::<u64, Limit>("LIMITS")? {
        ensure!(is_named(key), "LIMITS has one of no publication: {key}");
        line("LIMITS", &(), &value.per_second);
    }
    let prefixes = LpmTrie::<_, Addr, u32>::try_from(Map::LpmTrie(maps.open("PREFIXES")?))?;
    for entry in prefixes.iter() {
        let (key, value) = entry?;
        line("PREFIXES", &(key.data(), key.prefix_len()), &value);
    }
    let filters = LpmTrie::<_, FilterKey, u32>::try_from(Map::LpmTrie(maps.open("FILTERS")?))?;
    for entry in filters.iter() {
        let (key, value) = entry?;
        let FilterKey { list, addr } = key.data();
        ensure!(lists.contains(&list), "FILTERS has one of no publication: {addr:?}");
        line("FILTERS", &(list, addr, key.prefix_len()), &value);
    }
    for (map, words) in [("PORTS", PORT_WORDS), ("ADDRESS_BITS", ADDRESS_WORDS)] {
        for (index, word) in maps.elements(map, words as u32)? {
            line(map, &index, &word);
        }
    }
    let rules: HashSet<(u32, u64)> = maps.elements("RULES", SLOTS)?.into_iter().collect();
    ensure!(named.is_subset(&rules), "rules that have ended are named: {:?}", named.difference(&rules));
    ensure!(rules.is_subset(&named), "rules are in force that nothing names: {:?}", rules.difference(&named));
    Ok(lines)
}

struct Maps<'a>(&'a Path);

impl Maps<'_> {
    fn open(&self, name: &str) -> Result<MapData> {
        let path = self.0.join("maps").join(name);
        MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let map = HashMap::<_, K, V>::try_from(Map::HashMap(self.open(name)?))?;
        map.iter().collect::<std::result::Result<_, _>>().with_context(|| format!("cannot read {name}"))
    }

    /// Those of the first elements that are not zero.
    fn elements(&self, name: &str, count: u32) -> Result<Vec<(u32, u64)>> {
        let map = Array::<_, u64>::try_from(Map::Array(self.open(name)?))?;
        let mut found = Vec::new();
        for index in 0..count.min(map.len()) {
            let word = map.get(&index, 0).with_context(|| format!("cannot read {name}"))?;
            if word != 0 {
                found.push((index, word));
            }
        }
        Ok(found)
    }
}
