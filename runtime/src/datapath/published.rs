//! Published ports by container, and what of the map has to change when some containers' change.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use runtime_common::maps::{PUBLICATION_CLOSED, Publication, PublicationKey};

use super::filters::Sources;
use super::table::Differences;

/// The published ports of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Published ports, in the order that [`Published::sort`] makes. Of entries for the same port the first one counts, and
    /// what serves before what is closed.
    pub publications: Vec<(PublicationKey, Publication)>,
    /// Sources that filtered publications name, by the number of the list: the same everywhere for the same sources.
    pub lists: BTreeMap<u64, Arc<Sources>>,
    /// New conversations in a second, by the generation of limited publications.
    pub limits: BTreeMap<u64, u32>,
}

/// By key; what serves before what is closed.
fn order((key, value): &(PublicationKey, Publication)) -> (PublicationKey, u16) {
    (*key, value.flags & PUBLICATION_CLOSED)
}

impl Published {
    /// Puts the ports in the order of the map's keys, once for all the times that they are looked through.
    pub fn sort(&mut self) {
        self.publications.sort_by_key(order);
    }

    /// The entry for a port, if any.
    fn of(&self, key: &PublicationKey) -> Option<&(PublicationKey, Publication)> {
        let first = self.publications.partition_point(|(k, _)| k < key);
        self.publications.get(first).filter(|(k, _)| k == key)
    }
}

/// All published ports, in the order of their keys.
pub(super) fn all_of(parts: &[Arc<Published>]) -> Vec<(PublicationKey, Publication)> {
    let mut all: Vec<_> = parts.iter().flat_map(|p| p.publications.iter().copied()).collect();
    // Stable: of equals the first one stays. What is in order already costs next to nothing.
    all.sort_by_key(order);
    all.dedup_by_key(|(key, _)| *key);
    all
}

/// What the map, which `holds` what `before` says, has to be changed by so that it says `after`; looks at the ports alone of
/// those containers whose ports are not the very same. Without `before`, at all.
pub(super) fn differences(
    holds: &BTreeMap<PublicationKey, Publication>,
    before: Option<&[Arc<Published>]>,
    after: &[Arc<Published>],
) -> Differences<PublicationKey, Publication> {
    let changed = before.and_then(|before| changed(before, after));
    let Some(keys) = changed.filter(|keys| keys.len() * after.len() < holds.len()) else {
        let all = all_of(after);
        return Differences::of(holds, all.iter().map(|(k, v)| (k, v)));
    };
    let current = keys.iter().filter_map(|key| holds.get_key_value(key));
    let counts = |key| after.iter().filter_map(|p| p.of(key)).min_by_key(|entry| order(entry));
    let wanted: Vec<_> = keys.iter().filter_map(counts).collect();
    Differences::of(current, wanted.iter().map(|(k, v)| (k, v)))
}

/// The ports of containers that are in one of the lists alone. `None` where those in both have changed places: of equals,
/// another one may be the first.
fn changed(before: &[Arc<Published>], after: &[Arc<Published>]) -> Option<BTreeSet<PublicationKey>> {
    type Pointer = *const Published;
    let pointers = |list: &[Arc<Published>]| list.iter().map(Arc::as_ptr).collect::<HashSet<Pointer>>();
    let (were, are) = (pointers(before), pointers(after));
    let kept = before.iter().map(Arc::as_ptr).filter(|p| are.contains(p));
    if !kept.eq(after.iter().map(Arc::as_ptr).filter(|p| were.contains(p))) {
        return None;
    }
    let gone = before.iter().filter(|p| !are.contains(&Arc::as_ptr(p)));
    let new = after.iter().filter(|p| !were.contains(&Arc::as_ptr(p)));
    Some(gone.chain(new).flat_map(|p| p.publications.iter().map(|(key, _)| *key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some ports by a number that decides all.
    fn part(seed: u32) -> Arc<Published> {
        let mut state = seed.wrapping_mul(0x9e37_79b1) | 1;
        let mut next = |below: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % below
        };
        let mut made = Published::default();
        for _ in 0..next(6) {
            let key = PublicationKey { port: next(12) as u16, protocol: 6, ..PublicationKey::default() };
            let flags = if next(3) == 0 { PUBLICATION_CLOSED } else { 0 };
            made.publications.push((key, Publication { generation: next(40).into(), flags, ..Publication::default() }));
        }
        made.sort();
        made.into()
    }

    #[test]
    fn what_did_not_change_need_not_be_looked_at() {
        let mut partly = 0;
        for round in 0..2000u32 {
            let before: Vec<_> = (0..4).map(|n| part(round * 8 + n)).collect();
            // One changes, one goes, and one comes; or they change places.
            let mut after = vec![part(round * 8 + 5), before[0].clone(), before[2].clone(), part(round * 8 + 6)];
            if round % 4 == 0 {
                after.swap(1, 2);
            }
            // Enough of others that few are not all.
            let many = |first: u16| {
                let key = |port| PublicationKey { port, protocol: 17, ..PublicationKey::default() };
                let publications = (first..first + 60).map(|port| (key(port), Publication::default())).collect();
                Arc::new(Published { publications, ..Published::default() })
            };
            let many = many(100);
            let (before, after) = ([before, vec![many.clone()]].concat(), [after, vec![many]].concat());
            let holds: BTreeMap<_, _> = all_of(&before).into_iter().collect();
            partly += u32::from(changed(&before, &after).is_some_and(|keys| keys.len() * after.len() < holds.len()));
            let (some, all) = (differences(&holds, Some(&before), &after), differences(&holds, None, &after));
            assert_eq!((some.gone, some.old, some.new), (all.gone, all.old, all.new), "round {round}");
        }
        assert!(partly > 1000, "{partly}");
    }
}
