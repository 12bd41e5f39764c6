//! What was changed on running containers: publications and links that the engine does not know of, and those of the
//! engine's that were taken away.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::range::{PortSet, PublicationRange};
use super::{Container, Link, Publication};

/// Publications made on a running container, by one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePublication {
    /// The container's full id.
    pub container: String,
    /// What was published.
    pub publication: PublicationRange,
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
    pub unpublished: Vec<(String, PublicationRange)>,
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
    pub filter: Result<Arc<Filter>, String>,
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

/// What of a container's publications by the engine was taken away.
struct TakenAway<'a> {
    gone: Vec<&'a PublicationRange>,
    /// The engine's publications, where it matters whether those are among them.
    present: HashSet<&'a Publication>,
}

impl<'a> TakenAway<'a> {
    fn of(live: &'a Live, container: &'a Container) -> Self {
        let gone: Vec<_> = live.taken_from(container).collect();
        let present = if gone.is_empty() { HashSet::new() } else { container.publications.iter().collect() };
        TakenAway { gone, present }
    }

    /// Whether a publication of the engine's was taken away. A random host port is another one after a restart: what was
    /// taken away then is whatever stands in its place.
    fn contains(&self, publication: &Publication) -> bool {
        self.gone.iter().any(|gone| {
            gone.contains(publication)
                || gone
                    .of_container_port(publication.host_addr, publication.container_port)
                    .is_some_and(|p| !self.present.contains(&p))
        })
    }
}

impl Live {
    /// Publications of a container, live ones before the engine's.
    pub fn publications_of(&self, container: &Container) -> Vec<EffectivePublication> {
        let mut all = Vec::new();
        for p in self.made_on(container) {
            // Thousands of ports have one list of sources, and that can be long.
            let filter = Arc::new(p.filter.clone());
            all.extend(p.publication.iter().map(|publication| EffectivePublication {
                publication,
                created: p.created,
                filter: Ok(filter.clone()),
                closed: false,
            }));
        }
        let by_labels = Filter::of_labels(&container.labels).map(Arc::new).map_err(|e| e.to_string());
        let of_engine = self.of_engine(container);
        all.extend(of_engine.map(|(publication, closed)| EffectivePublication {
            publication: publication.clone(),
            created: 0,
            filter: by_labels.clone(),
            closed,
        }));
        all
    }

    /// Publications of a container that were not taken away.
    pub fn open_publications<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = Publication> + 'a {
        let made = self.made_on(container).flat_map(|p| p.publication.iter());
        made.chain(self.of_engine(container).filter(|(_, closed)| !closed).map(|(p, _)| p.clone()))
    }

    /// The engine's publications that were not made anew, and whether they were taken away.
    fn of_engine<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = (&'a Publication, bool)> {
        let taken_away = TakenAway::of(self, container);
        // They matter to what the engine publishes alone.
        let of_any = self.made_on(container).filter(|_| !container.publications.is_empty());
        let made: Vec<&PublicationRange> = of_any.map(|p| &p.publication).collect();
        let ports: Option<PortSet> =
            (!made.is_empty()).then(|| made.iter().flat_map(|r| r.iter()).map(|p| p.host_port).collect());
        let is_made = move |p: &Publication| {
            ports.as_ref().is_some_and(|s| s.contains(p.host_port)) && made.iter().any(|m| m.contains(p))
        };
        let own = container.publications.iter().filter(move |p| !is_made(p));
        own.map(move |p| (p, taken_away.contains(p)))
    }

    /// What was published live on a container.
    pub fn made_on<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = &'a LivePublication> + 'a {
        self.publications.iter().filter(|p| p.container == container.id)
    }

    /// What was taken away from a container.
    pub fn taken_from<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = &'a PublicationRange> + 'a {
        self.unpublished.iter().filter(|(id, _)| *id == container.id).map(|(_, gone)| gone)
    }

    /// Forgets that these were made on a container.
    pub fn forget_publications(&mut self, container: &str, gone: &[PublicationRange]) {
        for gone in gone {
            let made = std::mem::take(&mut self.publications);
            for p in made {
                if p.container != container {
                    self.publications.push(p);
                    continue;
                }
                let rest = p.publication.without(gone);
                self.publications
                    .extend(rest.into_iter().map(|publication| LivePublication { publication, ..p.clone() }));
            }
        }
    }

    /// Forgets that these were taken away from a container.
    pub fn give_back(&mut self, container: &str, back: &[PublicationRange]) {
        for back in back {
            let gone = std::mem::take(&mut self.unpublished);
            for (id, range) in gone {
                let rest = if id == container { range.without(back) } else { vec![range] };
                self.unpublished.extend(rest.into_iter().map(|r| (id.clone(), r)));
            }
        }
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
        // Its line leaves the recipient's /etc/hosts, whenever that can be written: one alias of each recipient is kept.
        let sourceless = self.links.iter().filter(|l| !exists(&l.link.source));
        self.unlinked.extend(sourceless.map(|l| (l.recipient.clone(), l.link.clone())));
        self.links.retain(|l| exists(&l.recipient) && exists(&l.link.source));
        let mut aliases = HashSet::new();
        self.unlinked
            .retain(|(id, l)| exists(id) && (exists(&l.source) || aliases.insert((id.clone(), l.alias.clone()))));
        *self != before
    }
}
