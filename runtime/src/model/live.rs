//! What was changed on running containers: publications and links that the engine does not know of, and those of the
//! engine's that were taken away.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::{Container, Link, Publication};

/// A publication made on a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePublication {
    /// The container's full id.
    pub container: String,
    /// What was published.
    pub publication: Publication,
    /// Who may use it.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// When: nanoseconds since 1970. Tells it from an earlier one of the same form.
    pub created: u64,
}

/// A link made between running containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveLink {
    /// The recipient's full id.
    pub recipient: String,
    /// Source and alias.
    pub link: Link,
    /// Whether all ports of the source are open, exposed or not.
    pub all_ports: bool,
    /// When: nanoseconds since 1970.
    pub created: u64,
}

/// All live changes. They last until they are undone or their container is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Publications made.
    pub publications: Vec<LivePublication>,
    /// Publications of the engine's taken away, by container.
    pub unpublished: Vec<(String, Publication)>,
    /// Links made.
    pub links: Vec<LiveLink>,
    /// Links of the engine's taken away, by recipient.
    pub unlinked: Vec<(String, Link)>,
}

/// A publication as it is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivePublication {
    /// What is published.
    pub publication: Publication,
    /// When it was made live; 0 for the engine's own.
    pub created: u64,
    /// Who may use it; an error where the container's labels cannot be understood.
    pub filter: Result<Filter, String>,
    /// Taken away: to be refused, whatever other rules still carry it.
    pub closed: bool,
}

/// A link as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveLink {
    /// Source and alias.
    pub link: Link,
    /// When it was made live; 0 for the engine's own.
    pub created: u64,
    /// Whether all ports are open.
    pub all_ports: bool,
}

impl Live {
    /// Publications of a container, live ones before the engine's.
    pub fn publications_of(&self, container: &Container) -> Vec<EffectivePublication> {
        let made = self.publications.iter().filter(|p| p.container == container.id);
        let mut all: Vec<_> = made
            .map(|p| EffectivePublication {
                publication: p.publication.clone(),
                created: p.created,
                filter: Ok(p.filter.clone()),
                closed: false,
            })
            .collect();
        let by_labels = Filter::of_labels(&container.labels).map_err(|e| e.to_string());
        let made: HashSet<Publication> = all.iter().map(|p| p.publication.clone()).collect();
        for publication in &container.publications {
            if !made.contains(publication) {
                let closed = self.is_unpublished(container, publication);
                let filter = by_labels.clone();
                all.push(EffectivePublication { publication: publication.clone(), created: 0, filter, closed });
            }
        }
        all
    }

    /// Whether a publication of the engine's was taken away. A random host port is another one after a restart: what was
    /// taken away then is whatever stands in its place.
    fn is_unpublished(&self, container: &Container, publication: &Publication) -> bool {
        self.unpublished.iter().filter(|(id, _)| *id == container.id).any(|(_, gone)| {
            gone == publication
                || (gone.container_port == publication.container_port
                    && gone.host_addr == publication.host_addr
                    && !container.publications.contains(gone))
        })
    }

    /// Links of a recipient.
    pub fn links_of(&self, recipient: &Container) -> Vec<EffectiveLink> {
        let made = self.links.iter().filter(|l| l.recipient == recipient.id);
        let mut all: Vec<_> =
            made.map(|l| EffectiveLink { link: l.link.clone(), created: l.created, all_ports: l.all_ports }).collect();
        for link in &recipient.links {
            let gone = self.unlinked.iter().any(|(id, l)| *id == recipient.id && l == link);
            if !gone && !all.iter().any(|l| l.link == *link) {
                all.push(EffectiveLink { link: link.clone(), created: 0, all_ports: false });
            }
        }
        all
    }

    /// Aliases that a recipient no longer has.
    pub fn removed_aliases(&self, recipient: &Container) -> Vec<String> {
        let kept = self.links_of(recipient);
        self.unlinked
            .iter()
            .filter(|(id, l)| *id == recipient.id && !kept.iter().any(|k| k.link.alias == l.alias))
            .map(|(_, l)| l.alias.clone())
            .collect()
    }

    /// Forgets what concerns containers that are gone; true where there was any.
    pub fn forget_unless(&mut self, exists: impl Fn(&str) -> bool) -> bool {
        let before = self.clone();
        self.publications.retain(|p| exists(&p.container));
        self.unpublished.retain(|(id, _)| exists(id));
        self.links.retain(|l| exists(&l.recipient) && exists(&l.link.source));
        self.unlinked.retain(|(id, l)| exists(id) && exists(&l.source));
        *self != before
    }
}
