//! Links of a running recipient stay with their sources when those are renamed.
//!
//! On networks of the user's own the engine keeps the source's name alone: once renamed, the source is not found by it, and
//! whoever is given the name next would be taken for it.

use crate::model::{Container, Snapshot};

/// Gives `container`, as the engine has just told of it, the links that it was known to have. `sources` are all containers.
pub(super) fn keep_links(known: &Container, container: &mut Container, sources: &Snapshot) {
    // A start resolves the names anew.
    let same_run = known.running && container.running && known.started_at == container.started_at;
    // Links on the default bridge follow renames by themselves; one that is missing there was removed.
    let default_only = |c: &Container| {
        c.endpoints.iter().all(|e| sources.networks.get(&e.network).is_some_and(|n| n.is_default_bridge))
    };
    if !same_run || default_only(container) {
        return;
    }
    for link in &known.links {
        if !sources.containers.contains_key(&link.source) {
            continue;
        }
        match container.links.iter_mut().find(|l| l.alias == link.alias) {
            Some(found) => found.source.clone_from(&link.source),
            None => container.links.push(link.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Endpoint, Link, Network};

    fn container(id: &str, network: &str, links: &[(&str, &str)]) -> Container {
        let link = |(source, alias): &(&str, &str)| Link { source: (*source).into(), alias: (*alias).into() };
        Container {
            id: id.into(),
            name: id.into(),
            hostname: id.into(),
            running: true,
            started_at: "2026-11-24T18:00:00Z".into(),
            pid: 1,
            labels: BTreeMap::new(),
            env: Vec::new(),
            exposed: Vec::new(),
            publications: Vec::new(),
            links: links.iter().map(link).collect(),
            endpoints: vec![Endpoint {
                network: network.into(),
                id: "e".into(),
                mac: None,
                ipv4: None,
                ipv6: None,
                gateway_priority: 0,
            }],
            sandbox: None,
            unserved: Default::default(),
            hosts_path: None,
        }
    }

    /// What is known after the engine tells of `told` links of a recipient that had `had`.
    fn kept(network: &str, had: &[(&str, &str)], told: &[(&str, &str)], restarted: bool) -> Vec<(String, String)> {
        let mut sources = Snapshot::default();
        for id in ["db", "other"] {
            sources.containers.insert(id.into(), container(id, network, &[]));
        }
        for (id, is_default_bridge) in [("bridge", true), ("own", false)] {
            let network = Network {
                id: id.into(),
                name: id.into(),
                driver: "bridge".into(),
                bridge: None,
                is_default_bridge,
                labels: BTreeMap::new(),
                subnets: Vec::new(),
                internal: false,
                masquerade: true,
                endpoints: BTreeMap::new(),
            };
            sources.networks.insert(id.into(), network);
        }
        let known = container("web", network, had);
        let mut web = container("web", network, told);
        if restarted {
            web.started_at = "2026-11-24T19:00:00Z".into();
        }
        keep_links(&known, &mut web, &sources);
        web.links.into_iter().map(|l| (l.source, l.alias)).collect()
    }

    #[test]
    fn a_renamed_source_is_kept_while_the_recipient_runs() {
        let had = [("db", "webdb")];
        let db = [("db".to_owned(), "webdb".to_owned())];
        assert_eq!(kept("own", &had, &[], false), db);
        // Somebody else has its name.
        assert_eq!(kept("own", &had, &[("other", "webdb")], false), db);
        assert_eq!(kept("own", &had, &[("other", "webdb")], true), [("other".to_owned(), "webdb".to_owned())]);
        assert_eq!(kept("own", &had, &[], true), []);
        // Removed itself.
        assert_eq!(kept("own", &[("gone", "webdb")], &[], false), []);
    }

    #[test]
    fn a_link_that_was_removed_on_the_default_bridge_is_gone() {
        assert_eq!(kept("bridge", &[("db", "webdb")], &[], false), []);
    }
}
