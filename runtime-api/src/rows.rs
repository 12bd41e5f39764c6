//! What is answered to all requests but [`Status`](crate::Status).

use runtime_model::Publication;
use runtime_model::range::PublicationRange;
use serde::{Deserialize, Serialize};

/// The daemon is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Its process id.
    pub pid: u32,
}

/// What became of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Whether its packets are looked after; not where it has ended, has no network of its own, or was only to be known.
    pub served: bool,
}

/// A change is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Always true.
    pub changed: bool,
}

/// Publications were made, or are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Always true.
    pub changed: bool,
    /// Which ones, with the ports that were chosen.
    pub publications: Vec<PublicationRange>,
}

/// A publication together with whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePublication {
    /// The container's full id.
    pub container: String,
    /// What was published on it while it ran, or taken away.
    pub publication: Publication,
    /// Taken away: the engine lists it still, and nobody serves it.
    #[serde(default)]
    pub closed: bool,
}

/// A link as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The recipient's name.
    pub recipient: String,
    /// The source's name.
    pub source: String,
    /// The alias.
    pub alias: String,
    /// Open ports, such as `5432/tcp`; `all` where all are.
    pub ports: Vec<String>,
    /// The source's address on the network that they share; none while one of them does not run.
    pub address: Option<String>,
    /// `engine` or `live`.
    pub origin: String,
    /// Whether the link is in force: both run and share a network.
    pub active: bool,
    /// The variables of the link.
    pub environment: Vec<String>,
}
