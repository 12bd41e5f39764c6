//! Which engine answers at an address.

use std::sync::Arc;

use serde_json::Value;

use super::docker::{DockerEngine, Product};
use super::podman::{self, PodmanEngine};
use super::{Engine, EngineError};

/// An engine with Docker's API, as the command line uses it.
#[derive(Clone)]
pub struct Connected {
    /// To create, start, attach, ...: the same requests for everybody with this API.
    pub control: DockerEngine,
    /// What it says of containers and networks.
    pub source: Arc<dyn Engine>,
}

/// Who keeps the links that a container is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksBy {
    /// The engine itself, in the container's configuration.
    Engine,
    /// A label of the recipient: the engine refuses links.
    Label,
}

impl Connected {
    /// Connects to the engine at `address` (`unix:///path` or `tcp://host:port`; `None` or empty: Docker's usual socket), and
    /// asks who it is.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] where none answers, [`EngineError::Refused`] for an address that is none, and for an engine
    /// whose containers are out of reach.
    pub async fn to(address: Option<&str>) -> Result<Self, EngineError> {
        let control = DockerEngine::connect(address).await?;
        let source: Arc<dyn Engine> = match control.product() {
            Product::Docker => Arc::new(control.clone()),
            Product::Podman => Arc::new(PodmanEngine::new(control.clone()).await?),
        };
        Ok(Connected { control, source })
    }

    /// Who keeps links.
    pub fn links_by(&self) -> LinksBy {
        match self.control.product() {
            Product::Docker => LinksBy::Engine,
            Product::Podman => LinksBy::Label,
        }
    }

    /// A container's `inspect` as the engine writes it, with its links where Docker has them.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where there is none.
    pub async fn inspect(&self, name: &str) -> Result<Value, EngineError> {
        let mut inspect = self.control.inspect_raw(name).await?;
        if self.links_by() == LinksBy::Label {
            let recipient = self.source.container(name).await?;
            let mut links = Vec::new();
            for link in recipient.links {
                // Links go with their sources.
                if let Ok(source) = self.source.container(&link.source).await {
                    links.push(format!("/{}:/{}/{}", source.name, recipient.name, link.alias));
                }
            }
            if let Some(slot) = inspect.pointer_mut("/HostConfig/Links").filter(|_| !links.is_empty()) {
                *slot = links.into();
            }
        }
        Ok(inspect)
    }

    /// Whether it takes a range of host ports for one container port, and chooses.
    pub fn chooses_from_ranges(&self) -> bool {
        match self.control.product() {
            Product::Docker => true,
            Product::Podman => false,
        }
    }

    /// Makes the network of a created container before its process starts, where the engine can do the one without the other.
    /// True where it did.
    ///
    /// # Errors
    /// The engine's own words where it cannot: a port in use, a command that is not there.
    pub async fn make_network_ahead(&self, id: &str) -> Result<bool, EngineError> {
        match self.control.product() {
            // It tells of an endpoint before the process starts.
            Product::Docker => Ok(false),
            Product::Podman => podman::initialise(&self.control, id).await.map(|()| true),
        }
    }
}
