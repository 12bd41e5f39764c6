//! Where containers come from.

mod connected;
pub mod docker;
pub mod podman;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::model::{Container, Network, Snapshot};
pub use connected::{Connected, LinksBy};

/// Something changed at the engine; what it names is to be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container was created, or its configuration or state changed.
    Container {
        /// Full id.
        id: String,
        /// What happened to it.
        change: Change,
    },
    /// A container was connected to or disconnected from a network. Comes before the container's process starts.
    Endpoint {
        /// The network's full id.
        network: String,
        /// The container's full id.
        container: String,
        /// Whether it is connected now.
        connected: bool,
    },
    /// A network was created or removed.
    Network {
        /// Full id.
        id: String,
    },
}

/// What happened to a container, as far as it makes a difference whether one asks for it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Created, started, renamed, paused, ...: to be asked for again.
    Updated,
    /// Its process has ended.
    Ended,
    /// It is no more.
    Removed,
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached.
    #[error(
        "the container engine at {address} does not answer: {reason}; start it, or name another with --docker-host"
    )]
    Unreachable {
        /// Its address as configured.
        address: String,
        /// What the attempt said.
        reason: String,
    },
    /// It knows no such object.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `container`, `image`, `network`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// It refused; its own words.
    #[error("{0}")]
    Refused(String),
}

/// A source of containers that the daemon follows.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Everything as of now.
    async fn snapshot(&self) -> Result<Snapshot, EngineError>;
    /// One container by id or name. May wait while the engine is starting that container.
    async fn container(&self, id: &str) -> Result<Container, EngineError>;
    /// One network by id or name. Never waits for a container.
    async fn network(&self, id: &str) -> Result<Network, EngineError>;
    /// What happens from now on; ends when the engine goes away.
    async fn events(&self) -> Result<BoxStream<'static, Event>, EngineError>;
    /// Name and version, for people.
    async fn version(&self) -> Result<String, EngineError>;
    /// Whether the engine makes a network's rules in the host's firewall with its first container, not with the network.
    fn makes_rules_with_containers(&self) -> bool {
        false
    }
}
