//! What one container may have of the kernel's tables: nobody can fill one up for all the others.
//!
//! Who does not fit is refused alone, and as a whole: part of a container's ports, or ports without their filters, would be
//! neither what was asked for nor safe.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use runtime_common::maps::{MAX_ENDPOINTS, MAX_FILTERS, MAX_LIMITS, MAX_LINKS, MAX_PUBLICATIONS};

use crate::datapath::Sources;
use crate::model::Container;
use crate::model::filter::MAX_SOURCES;

/// How much of a table there is.
pub(super) struct Quota {
    /// What is counted, as people call it.
    what: &'static str,
    /// For one container.
    pub one: usize,
    /// For all of them together.
    pub all: usize,
    /// What to do for one that wants more.
    remedy: &'static str,
}

/// Published ports, each address and protocol by itself: every port of TCP on IPv4 and IPv6.
pub(super) const PUBLICATIONS: Quota = Quota {
    what: "published ports",
    one: MAX_PUBLICATIONS / 2,
    all: MAX_PUBLICATIONS,
    remedy: "publish fewer ports, or on fewer addresses",
};
/// Prefixes in lists of sources; a list that others have as well counts once for all.
pub(super) const FILTERS: Quota = Quota {
    what: "prefixes in filters",
    one: MAX_SOURCES,
    // The lists of before and of after a change are in the kernel together for a moment.
    all: MAX_FILTERS / 2,
    remedy: "name fewer or shorter prefixes",
};
/// Published ports with a rate.
pub(super) const LIMITS: Quota = Quota {
    what: "published ports with a rate",
    one: MAX_LIMITS / 8,
    all: MAX_LIMITS / 2,
    remedy: "publish fewer ports with --max-rate",
};
/// Interfaces on bridges.
pub(super) const ENDPOINTS: Quota =
    Quota { what: "networks", one: MAX_ENDPOINTS / 8, all: MAX_ENDPOINTS, remedy: "connect it to fewer networks" };
/// Open ports of links, for their recipient.
pub(super) const LINKS: Quota = Quota {
    what: "open ports of links",
    one: MAX_LINKS / 4,
    all: MAX_LINKS,
    remedy: "link to containers that expose fewer ports, or with --all-ports, which takes one entry",
};

/// Admits as many as there is room for, those first that were started first; returns why the others are not, by the container's
/// id. `wanted` is how much each container wants.
pub(super) fn refuse<'a>(
    quota: &Quota,
    wanted: impl IntoIterator<Item = (&'a Container, usize)>,
) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    let mut fit: Vec<(&Container, usize)> = Vec::new();
    for (container, wants) in wanted {
        match wants <= quota.one {
            true => fit.push((container, wants)),
            false => drop(refused.insert(container.id.clone(), quota.too_many(wants))),
        }
    }
    if fit.iter().map(|(_, wants)| wants).sum::<usize>() <= quota.all {
        return refused;
    }
    // By when they were started: who is served already stays so, for the next daemon as well.
    fit.sort_by_key(|(c, _)| (&c.started_at, &c.id));
    let mut taken = 0;
    for (container, wants) in fit {
        match taken + wants <= quota.all {
            true => taken += wants,
            false => drop(refused.insert(container.id.clone(), quota.full(wants, taken))),
        }
    }
    refused
}

/// As [`refuse`], of lists of sources: those that are the same have the same number, and count once for all.
pub(super) fn refuse_lists<'a>(
    quota: &Quota,
    wanted: impl IntoIterator<Item = (&'a Container, BTreeMap<u64, &'a Arc<Sources>>)>,
) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    let mut fit = Vec::new();
    for (container, lists) in wanted {
        let wants: usize = lists.values().map(|list| list.len()).sum();
        match wants <= quota.one {
            true => fit.push((container, lists)),
            false => drop(refused.insert(container.id.clone(), quota.too_many(wants))),
        }
    }
    fit.sort_by_key(|(c, _)| (&c.started_at, &c.id));
    let (mut known, mut taken): (HashMap<u64, &Arc<Sources>>, usize) = Default::default();
    for (container, lists) in fit {
        // Numbers follow from what is in a list, and could be the same for others, if only by ill will.
        let is_other = |(number, list): (&u64, &&Arc<Sources>)| {
            known.get(number).is_some_and(|k| !Arc::ptr_eq(k, list) && k != list)
        };
        if lists.iter().any(is_other) {
            let reason = "its list of sources has the number of another one; name one prefix more or less".to_owned();
            refused.insert(container.id.clone(), reason);
            continue;
        }
        let wants: usize = lists.iter().filter(|(n, _)| !known.contains_key(n)).map(|(_, list)| list.len()).sum();
        if taken + wants > quota.all {
            refused.insert(container.id.clone(), quota.full(wants, taken));
            continue;
        }
        taken += wants;
        known.extend(lists);
    }
    refused
}

impl Quota {
    fn too_many(&self, wants: usize) -> String {
        format!("it has {wants} {}, of {} at most for one container; {}", self.what, self.one, self.remedy)
    }

    fn full(&self, wants: usize, taken: usize) -> String {
        format!(
            "it has {wants} {}, and of {} for all containers those that were started before it have {taken}; {}, or end another",
            self.what, self.all, self.remedy
        )
    }
}
