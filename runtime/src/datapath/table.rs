//! A map with what it holds, changed by differences: many entries at once where the kernel takes them so.

use std::collections::BTreeMap;
use std::io::Error;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{Array, HashMap, IterableMap, MapData, MapError};

use super::{DatapathError, bpf_syscall, map_error};
use crate::failpoint;

/// What was changed in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Entries written.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
    /// Rules whose flows were ended.
    pub ended: usize,
}

/// Whether an entry is there and right.
pub(super) fn is<V>(
    found: Result<V, MapError>,
    right: impl FnOnce(V) -> bool,
    map: &'static str,
) -> Result<bool, DatapathError> {
    match found {
        Ok(found) => Ok(right(found)),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(e) => Err(map_error(map, &e)),
    }
}

/// From how many entries on one call for all is worth it.
const MANY: usize = 8;
/// How many entries of a map are compared with the kernel's at a time: about 1 µs each, and as long for the rule of each.
const PART: usize = 2048;

/// A map of the kernel's.
pub(super) struct Table<K, V> {
    name: &'static str,
    size: usize,
    map: HashMap<MapData, K, V>,
    /// Its entries, without their slots.
    pub holds: BTreeMap<K, V>,
    looked: Looked<K>,
}

/// How far the entries of a map have been compared with the kernel's.
pub(super) struct Looked<K>(Option<K>);

impl<K> Default for Looked<K> {
    fn default() -> Self {
        Looked(None)
    }
}

impl<K: Copy + Ord> Looked<K> {
    /// The next part of the entries; from the first one on when all have been looked at.
    pub fn part<V: Copy>(&mut self, holds: &BTreeMap<K, V>) -> Vec<(K, V)> {
        let from = self.0.map_or(Unbounded, Excluded);
        let part: Vec<(K, V)> = holds.range((from, Unbounded)).take(PART).map(|(k, v)| (*k, *v)).collect();
        self.0 = part.last().map(|(key, _)| *key).filter(|_| part.len() == PART);
        part
    }
}

/// What a map is to be changed by.
pub(super) struct Differences<K, V> {
    /// Keys that go.
    pub gone: Vec<K>,
    /// Entries that go or change, as they were.
    pub old: Vec<(K, V)>,
    /// Entries that come or change, as they are to be.
    pub new: Vec<(K, V)>,
}

impl<K, V> Default for Differences<K, V> {
    fn default() -> Self {
        Differences { gone: Vec::new(), old: Vec::new(), new: Vec::new() }
    }
}

impl<K: Pod + Ord, V: Pod + PartialEq> Differences<K, V> {
    /// Of two lists in the order of their keys.
    pub fn of<'a>(
        current: impl IntoIterator<Item = (&'a K, &'a V)>,
        desired: impl IntoIterator<Item = (&'a K, &'a V)>,
    ) -> Self {
        let mut found = Differences::default();
        let mut current = current.into_iter().peekable();
        for (key, value) in desired {
            while let Some((k, v)) = current.next_if(|(k, _)| *k < key) {
                found.gone.push(*k);
                found.old.push((*k, *v));
            }
            match current.next_if(|(k, _)| *k == key) {
                Some((_, v)) if v == value => continue,
                Some((k, v)) => found.old.push((*k, *v)),
                None => {}
            }
            found.new.push((*key, *value));
        }
        for (k, v) in current {
            found.gone.push(*k);
            found.old.push((*k, *v));
        }
        found
    }
}

impl<K: Pod + Ord, V: Pod + PartialEq> Table<K, V> {
    /// Takes over what a predecessor left.
    pub fn adopt(name: &'static str, size: usize, map: HashMap<MapData, K, V>) -> Result<Self, DatapathError> {
        let holds = map.iter().collect::<Result<_, MapError>>().map_err(|e| map_error(name, &e))?;
        Ok(Table { name, size, map, holds, looked: Looked::default() })
    }

    /// The kernel's map itself.
    pub fn map(&self) -> &HashMap<MapData, K, V> {
        &self.map
    }

    /// What is to be done so that it says this.
    pub fn differences<'a>(&'a self, desired: impl IntoIterator<Item = (&'a K, &'a V)>) -> Differences<K, V> {
        Differences::of(&self.holds, desired)
    }

    /// How many entries it will have.
    pub fn len_after(&self, d: &Differences<K, V>) -> usize {
        self.holds.len() + d.new.len() - d.old.len()
    }

    /// The entries that neither go nor change.
    pub fn kept<'a>(&'a self, d: &'a Differences<K, V>) -> impl Iterator<Item = &'a V> {
        // Both are in the order of their keys.
        let mut old = d.old.iter().map(|(key, _)| key).peekable();
        let others = self.holds.iter().filter(move |(key, _)| old.next_if_eq(key).is_none());
        others.map(|(_, value)| value)
    }

    /// Removes what goes.
    pub fn remove(&mut self, d: &Differences<K, V>, ops: &mut Operations) -> Result<(), DatapathError> {
        let mut rest = &d.gone[..];
        while let Some((first, others)) = rest.split_first() {
            let done = match rest.len() < MANY {
                true => 0,
                false => match bpf_syscall::delete_batch(self.map.map().fd().as_fd(), rest) {
                    Ok(()) => rest.len(),
                    // The one it stopped at is tried alone.
                    Err((done, _)) => done,
                },
            };
            for key in &rest[..done] {
                self.holds.remove(key);
            }
            ops.removed += done;
            if done > 0 {
                rest = &rest[done..];
                continue;
            }
            failpoint::step();
            match self.map.remove(first) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error(self.name, &e)),
            }
            self.holds.remove(first);
            ops.removed += 1;
            rest = others;
        }
        Ok(())
    }

    /// Writes what comes or changes, each with its slot.
    pub fn write(
        &mut self,
        d: Differences<K, V>,
        ops: &mut Operations,
        with_rule: impl Fn(&V) -> V,
    ) -> Result<(), DatapathError> {
        let mut rest = &d.new[..];
        if rest.len() >= MANY {
            let entries: Vec<(K, V)> = rest.iter().map(|(k, v)| (*k, with_rule(v))).collect();
            let result = bpf_syscall::update_batch(self.map.map().fd().as_fd(), &entries);
            let done = result.as_ref().map_or_else(|(done, _)| *done, |()| rest.len());
            self.holds.extend(rest[..done].iter().copied());
            ops.written += done;
            rest = &rest[done..];
            if let Err((_, e)) = result
                && !bpf_syscall::is_unsupported(&e)
            {
                return Err(self.explain(e));
            }
        }
        for (key, value) in rest {
            failpoint::step();
            self.map.insert(key, with_rule(value), 0).map_err(|e| map_error(self.name, &e))?;
            self.holds.insert(*key, *value);
            ops.written += 1;
        }
        Ok(())
    }

    /// Looks whether the kernel has the next part of the entries as they were written, each with its slot, and writes anew
    /// what it has not: somebody has deleted or changed it. What is in the part, and how many of it were not right.
    pub fn put_back(&mut self, with_rule: impl Fn(&V) -> V) -> Result<(Vec<V>, usize), DatapathError> {
        let part = self.looked.part(&self.holds);
        let mut lost = 0;
        for (key, value) in &part {
            let value = with_rule(value);
            match self.map.get(key, 0) {
                Ok(found) if found == value => continue,
                Ok(_) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error(self.name, &e)),
            }
            failpoint::step();
            self.map.insert(key, value, 0).map_err(|e| map_error(self.name, &e))?;
            lost += 1;
        }
        Ok((part.into_iter().map(|(_, value)| value).collect(), lost))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn explain(&self, e: Error) -> DatapathError {
        match e.raw_os_error() {
            Some(nix::libc::E2BIG) => DatapathError::Full { map: self.name, size: self.size },
            _ => map_error(self.name, &e),
        }
    }
}

/// All entries of a map that the kernel side changes meanwhile.
pub(super) fn read_entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    // One by one, an entry may go while the table is being read.
    bpf_syscall::read_all(map.map().fd().as_fd()).unwrap_or_else(|_| map.iter().flatten().collect())
}

/// As [`read_entries`], where a part of them says something wrong.
pub(super) fn read_all_entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Result<Vec<(K, V)>, MapError> {
    bpf_syscall::read_all(map.map().fd().as_fd()).or_else(|_| map.iter().collect())
}

/// Writes elements of an array.
pub(super) fn write_elements(
    name: &'static str,
    array: &mut Array<MapData, u64>,
    elements: &[(u32, u64)],
) -> Result<(), DatapathError> {
    let mut rest = elements;
    if elements.len() >= MANY {
        match bpf_syscall::update_batch(array.map().fd().as_fd(), elements) {
            Ok(()) => return Ok(()),
            Err((done, e)) if bpf_syscall::is_unsupported(&e) => rest = &elements[done..],
            Err((_, e)) => return Err(map_error(name, &e)),
        }
    }
    for (index, value) in rest {
        failpoint::step();
        array.set(*index, *value, 0).map_err(|e| map_error(name, &e))?;
    }
    Ok(())
}

pub(super) fn check_size(map: &'static str, wanted: usize, size: usize) -> Result<(), DatapathError> {
    if wanted > size { Err(DatapathError::Full { map, size }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_entries_are_looked_at_in_turn() {
        let many: BTreeMap<usize, ()> = (0..PART * 2 + 5).map(|key| (key, ())).collect();
        let mut looked = Looked::default();
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let part = looked.part(&many);
            firsts.push((part[0].0, part.len()));
        }
        assert_eq!(firsts, [(0, PART), (PART, PART), (PART * 2, 5), (0, PART)]);
        assert!(looked.part(&BTreeMap::<usize, ()>::new()).is_empty());
        assert_eq!(looked.part(&many).first(), Some(&(0, ())), "from the first one on");
    }

    #[test]
    fn differences_of_two_lists() {
        let current = BTreeMap::from([(1u32, 10u32), (2, 20), (3, 30), (5, 50), (6, 60)]);
        let desired = BTreeMap::from([(0, 1), (2, 20), (3, 31), (4, 40), (5, 50)]);
        let d = Differences::of(&current, &desired);
        assert_eq!(d.gone, [1, 6]);
        assert_eq!(d.old, [(1, 10), (3, 30), (6, 60)]);
        assert_eq!(d.new, [(0, 1), (3, 31), (4, 40)]);
        let same = Differences::of(&current, &current);
        assert!(same.gone.is_empty() && same.old.is_empty() && same.new.is_empty());
    }
}
