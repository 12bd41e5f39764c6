//! Podman, through its Docker-compatible API, and its own where that one does not tell enough.

mod convert;
mod links;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::docker::names::Names;
use super::docker::{self, CONCURRENCY, DockerEngine};
use super::{Engine, EngineError, Event};
use crate::model::{Container, Network, Snapshot};
use convert::{LibpodNetwork, Listed};
pub use links::{LINKS_LABEL, label as links_label};

/// The version of libpod's API that is asked: the oldest that Podman 4, 5 and 6 speak.
const LIBPOD: &str = "/v4.0.0/libpod";
/// The name that the compatible API has for the network that containers are on by default, whatever it is called.
const DEFAULT_NETWORK: &str = "bridge";

/// A Podman Engine (4 and later), run by root.
#[derive(Clone, Debug)]
pub struct PodmanEngine {
    compatible: DockerEngine,
    /// Id of the network that containers are on by default.
    default_network: String,
}

impl PodmanEngine {
    /// Podman behind this connection.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where it is not run by root: its containers are in a network namespace of its own.
    pub async fn new(compatible: DockerEngine) -> Result<Self, EngineError> {
        let info = compatible.get("system", "", "/info").await?;
        if is_rootless(&info) {
            return Err(EngineError::Refused(format!(
                "the Podman Engine at {} is run by an ordinary user, and its containers' network is no part of the host's: run \
                 \"podman system service\" as root",
                compatible.address()
            )));
        }
        let default = compatible.get("network", DEFAULT_NETWORK, &format!("/networks/{DEFAULT_NETWORK}")).await?;
        let default_network = default.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(PodmanEngine { compatible, default_network })
    }

    /// What libpod's own API answers.
    async fn libpod<T: DeserializeOwned>(&self, kind: &'static str, name: &str, path: &str) -> Result<T, EngineError> {
        let answer = self.compatible.get(kind, name, &format!("{LIBPOD}{path}")).await?;
        serde_json::from_value(answer)
            .map_err(|e| EngineError::Refused(format!("Podman's answer about {kind} {name} cannot be understood: {e}")))
    }

    async fn networks(&self, name: &str) -> Result<Vec<Network>, EngineError> {
        // The list alone waits for no container.
        let told: Vec<LibpodNetwork> = self.libpod("network", name, "/networks/json").await?;
        Ok(told.into_iter().map(|n| convert::network(n, &self.default_network)).collect())
    }

    /// An inspected container, put as Docker would put it.
    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, EngineError> {
        let mut raw = self.compatible.inspect_raw(id).await.map_err(|e| gone(id, e))?;
        if let Some(state) = raw.get_mut("State").and_then(Value::as_object_mut) {
            // Podman has words of its own for it; whether it runs is told beside.
            state.remove("Status");
        }
        let mut inspect: ContainerInspectResponse = serde_json::from_value(raw).map_err(|e| {
            EngineError::Refused(format!("Podman's answer about container {id} cannot be understood: {e}"))
        })?;
        let full = inspect.id.clone().unwrap_or_default();
        // {"id":["..."]}
        let path = format!("/containers/json?all=true&filters=%7B%22id%22%3A%5B%22{full}%22%5D%7D");
        let listed: Vec<Listed> = self.libpod("container", id, &path).await?;
        let mappings = listed.into_iter().find(|c| c.id == full).and_then(|c| c.ports).unwrap_or_default();
        convert::as_docker(&mut inspect, &mappings);
        Ok(inspect)
    }

    async fn inspect_with(&self, id: &str, names: &Names) -> Result<Container, EngineError> {
        let inspect = self.inspect(id).await?;
        docker::convert::container(inspect, names).ok_or_else(|| docker::no_id("container", id))
    }
}

#[async_trait]
impl Engine for PodmanEngine {
    async fn snapshot(&self) -> Result<Snapshot, EngineError> {
        let listed = self.compatible.list(true, &BTreeMap::new()).await?;
        let mut names = Names::default();
        names.add_containers(&listed);
        let networks = self.networks("").await?;
        let names = &names;
        let questions: Vec<_> = listed
            .iter()
            .filter_map(|summary| Some((summary, summary.id.as_deref()?)))
            .map(|(summary, id)| docker::inspected_or_listed(self.inspect_with(id, names), summary, names))
            .collect();
        let containers: Vec<Option<Container>> =
            stream::iter(questions).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(Snapshot {
            containers: containers.into_iter().flatten().map(|c| (c.id.clone(), c)).collect(),
            networks: networks.into_iter().map(|n| (n.id.clone(), n)).collect(),
        })
    }

    async fn container(&self, id: &str) -> Result<Container, EngineError> {
        let inspect = self.inspect(id).await?;
        // Podman tells the id of every network that a container is on.
        let names = self.compatible.names_of(&docker::convert::names_needed(&inspect).0).await?;
        docker::convert::container(inspect, &names).ok_or_else(|| docker::no_id("container", id))
    }

    async fn network(&self, id: &str) -> Result<Network, EngineError> {
        let wanted = if id == DEFAULT_NETWORK { &self.default_network } else { id };
        let found = self.networks(id).await?.into_iter().find(|n| n.id == wanted || n.name == wanted);
        found.ok_or_else(|| EngineError::NotFound { kind: "network", name: id.to_owned() })
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>, EngineError> {
        self.compatible.events_as(convert::event).await.map_err(|e| match e {
            EngineError::Refused(reason) => EngineError::Refused(format!(
                "the Podman Engine at {} tells of no events ({reason}): set events_logger to \"journald\" or \"file\" in \
                 containers.conf",
                self.compatible.address()
            )),
            e => e,
        })
    }

    async fn version(&self) -> Result<String, EngineError> {
        Ok(format!("Podman Engine {}", self.compatible.current_version().await?))
    }

    fn makes_rules_with_containers(&self) -> bool {
        true
    }
}

/// A container that is removed while it is looked at is an error of Podman's own.
fn gone(id: &str, e: EngineError) -> EngineError {
    match e {
        EngineError::Refused(text) if text.contains("no such container") => {
            EngineError::NotFound { kind: "container", name: id.to_owned() }
        }
        e => e,
    }
}

/// Makes a created container's network and everything else that its process needs, and leaves it at that.
pub(super) async fn initialise(compatible: &DockerEngine, id: &str) -> Result<(), EngineError> {
    compatible.post("container", id, &format!("{LIBPOD}/containers/{id}/init")).await
}

/// Whether an ordinary user runs the Engine.
fn is_rootless(info: &Value) -> bool {
    let options = info.get("SecurityOptions").and_then(Value::as_array);
    options.into_iter().flatten().any(|o| o == "name=rootless")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_of_an_ordinary_user_is_known() {
        assert!(!is_rootless(&json!({"SecurityOptions": ["name=seccomp,profile=default"]})));
        assert!(is_rootless(&json!({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]})));
        assert!(!is_rootless(&json!({"SecurityOptions": null})));
    }
}
