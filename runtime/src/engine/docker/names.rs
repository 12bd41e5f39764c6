//! Who is meant by a name.

use std::collections::BTreeMap;

use bollard::models::ContainerSummary;

use crate::model::Link;

/// The names that an Engine knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Names {
    containers: BTreeMap<String, String>,
    networks: BTreeMap<String, String>,
    /// Recipient's name, and the link, from the alias names (`/web/webdb`) that a source carries.
    links: Vec<(String, Link)>,
}

impl Names {
    /// Learns the names of listed containers.
    pub fn add_containers(&mut self, listed: &[ContainerSummary]) {
        for summary in listed {
            let (Some(id), Some(name)) = (summary.id.as_deref(), own_name(summary)) else { continue };
            self.containers.insert(name.to_owned(), id.to_owned());
            for alias in summary.names.iter().flatten() {
                if let Some((recipient, alias)) = alias.trim_start_matches('/').split_once('/') {
                    let link = Link { source: id.to_owned(), alias: alias.to_owned() };
                    self.links.push((recipient.to_owned(), link));
                }
            }
        }
    }

    /// Learns a network's name.
    pub fn add_network(&mut self, name: String, id: String) {
        self.networks.insert(name, id);
    }

    /// The full id of the container that goes by this id, name, or unambiguous beginning of an id: Docker's order.
    pub fn container(&self, reference: &str) -> Option<&str> {
        if reference.is_empty() {
            return None;
        }
        if let Some(id) = self.containers.values().find(|id| *id == reference) {
            return Some(id);
        }
        if let Some(id) = self.containers.get(reference) {
            return Some(id);
        }
        let mut starting = self.containers.values().filter(|id| id.starts_with(reference));
        let first = starting.next()?;
        starting.next().is_none().then_some(first)
    }

    /// The full id of the network of this name.
    pub fn network(&self, name: &str) -> Option<&str> {
        self.networks.get(name).map(String::as_str)
    }

    /// The links that the list shows for a recipient.
    pub fn links_of(&self, recipient: &str) -> impl Iterator<Item = Link> {
        self.links.iter().filter(move |(r, _)| r == recipient).map(|(_, link)| link.clone())
    }
}

/// A listed container's own name: the others in the list are the aliases that links give it.
pub fn own_name(summary: &ContainerSummary) -> Option<&str> {
    summary.names.iter().flatten().map(|n| n.trim_start_matches('/')).find(|n| !n.is_empty() && !n.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, names: &[&str]) -> ContainerSummary {
        ContainerSummary {
            id: Some(id.into()),
            names: Some(names.iter().map(|n| (*n).into()).collect()),
            ..Default::default()
        }
    }

    #[test]
    fn a_name_goes_before_the_beginning_of_an_id() {
        let mut names = Names::default();
        names.add_containers(&[listed("abc1", &["/one"]), listed("abd2", &["/abc"]), listed("one9", &["/x"])]);
        assert_eq!(names.container("one"), Some("abc1"));
        assert_eq!(names.container("abc"), Some("abd2"));
        assert_eq!(names.container("abd2"), Some("abd2"));
        assert_eq!(names.container("one9"), Some("one9"));
        assert_eq!(names.container("ab"), None, "two begin so");
        assert_eq!(names.container("on"), Some("one9"));
        assert_eq!(names.container(""), None);
    }

    #[test]
    fn aliases_are_links_not_names() {
        let mut names = Names::default();
        names.add_containers(&[listed("db1", &["/web/webdb", "/db2"]), listed("web1", &["/web"])]);
        assert_eq!(names.container("db2"), Some("db1"));
        assert_eq!(names.container("webdb"), None);
        let link = Link { source: "db1".into(), alias: "webdb".into() };
        assert_eq!(names.links_of("web").collect::<Vec<_>>(), [link]);
        assert_eq!(names.links_of("db2").count(), 0);
    }
}
