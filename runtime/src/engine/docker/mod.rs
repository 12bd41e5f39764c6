//! A real Docker Engine, through its API.

mod address;
mod control;
pub mod convert;
mod http;
pub(super) mod names;
pub(super) mod podman_list;
mod version;
#[cfg(test)]
mod version_tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EventMessage, SystemVersion,
};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use bollard::query_parameters::{InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::io::AsyncBufReadExt;

pub use address::{Address, InvalidAddress};
pub use control::Connection;
use http::HttpError;
use names::Names;
pub use names::own_name;
use version::{Agreed, Range};
pub use version::{ApiVersion, InvalidApiVersion};

use super::{Engine, EngineError, Event};
use crate::model::{Container, Network, Snapshot};

/// How long one request may take. Starting a container is one, and takes as long as its storage does.
const REQUEST_TIMEOUT_SECONDS: u64 = 300;
/// How long a snapshot waits for a container that runs: only a busy machine makes it wait at all.
const RUNNING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a snapshot waits for one that does not run: the Engine answers nothing about a container that it is starting.
const STARTING_PATIENCE: Duration = Duration::from_millis(500);
/// Questions asked at a time.
pub(super) const CONCURRENCY: usize = 16;

/// An Engine with Docker's API, 1.41 or later.
#[derive(Clone, Debug)]
pub struct DockerEngine {
    client: Docker,
    address: Address,
    api: Arc<Agreed>,
    /// What `DOCKER_API_VERSION` wishes for.
    wish: Option<String>,
    version: String,
    product: Product,
}

/// Who it is that speaks Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// Docker, or whoever says that it is.
    Docker,
    /// Podman's service.
    Podman,
}

impl Product {
    fn of(version: &SystemVersion) -> Self {
        let components = version.components.iter().flatten();
        let is_podman = components.into_iter().any(|c| c.name == "Podman Engine");
        if is_podman { Product::Podman } else { Product::Docker }
    }
}

impl DockerEngine {
    /// Connects to the Engine at `address` (`unix:///path` or `tcp://host:port`; `None` or empty: the usual socket), and asks
    /// for its version. The version of the API is the newest that both know, or the one that `DOCKER_API_VERSION` names.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] where none answers, [`EngineError::Refused`] for an address that is none, and where there is
    /// no version of the API that both speak.
    pub async fn connect(address: Option<&str>) -> Result<Self, EngineError> {
        let wish = std::env::var_os("DOCKER_API_VERSION").map(|v| v.to_string_lossy().into_owned());
        Self::connect_in(address, wish.as_deref()).await
    }

    /// As [`DockerEngine::connect`], in this version of the API.
    async fn connect_in(address: Option<&str>, wish: Option<&str>) -> Result<Self, EngineError> {
        let address: Address = match address {
            Some(text) if !text.is_empty() => {
                text.parse().map_err(|e: InvalidAddress| EngineError::Refused(e.to_string()))?
            }
            _ => Address::default(),
        };
        let text = address.to_string();
        let client = match &address {
            Address::Unix(_) => Docker::connect_with_unix(&text, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION),
            Address::Tcp(_) => Docker::connect_with_http(&text, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        };
        let client = client.map_err(|e| explain(&address, "", "", e))?;
        let (version, range) = ask(&address).await?;
        let api = Arc::new(Agreed::new(range.choose(wish, &text)?, range));
        let agreed = api.clone();
        let client = client.with_request_modifier(move |request| agreed.request(request));
        let product = Product::of(&version);
        let version = version.version.unwrap_or_default();
        Ok(DockerEngine { client, address, api, wish: wish.map(str::to_owned), version, product })
    }

    /// Agrees on a version of the API anew: the Engine may have been replaced since.
    async fn agree(&self) -> Result<(), EngineError> {
        let (_, range) = ask(&self.address).await?;
        self.api.set(range.choose(self.wish.as_deref(), &self.address.to_string())?, range);
        Ok(())
    }

    /// A path of Docker's API in the version that was agreed on.
    pub(super) fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.api.spoken())
    }

    /// Who it is.
    pub(super) fn product(&self) -> Product {
        self.product
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The newest version of the API that it has, whichever is spoken.
    pub fn api_version(&self) -> ApiVersion {
        self.api.newest()
    }

    fn error(&self, kind: &'static str, name: &str, e: bollard::errors::Error) -> EngineError {
        explain(&self.address, kind, name, e)
    }

    fn http_error(&self, kind: &'static str, name: &str, e: HttpError) -> EngineError {
        explain_http(&self.address, kind, name, e)
    }

    /// The Engine's list of containers, stopped ones included, under its own filters (`name`, `status`, `label`, ...).
    /// Never waits for a container.
    ///
    /// # Errors
    /// Where the Engine is gone, or refuses a filter.
    pub async fn list(
        &self,
        all: bool,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        if self.product == Product::Podman {
            return podman_list::list(self, all, filters).await;
        }
        let filters = filters.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let options = ListContainersOptionsBuilder::default().all(all).filters(&filters).build();
        self.client.list_containers(Some(options)).await.map_err(|e| self.error("container", "", e))
    }

    /// What a path of the Engine's API answers, as it is.
    pub(super) async fn get(&self, kind: &'static str, name: &str, path: &str) -> Result<Value, EngineError> {
        http::json(&self.address, path).await.map_err(|e| self.http_error(kind, name, e))
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, kind: &'static str, name: &str, path: &str) -> Result<(), EngineError> {
        let done = http::request(&self.address, Method::POST, path).await;
        done.map(drop).map_err(|e| self.http_error(kind, name, e))
    }

    /// The Engine's version as of now: it may have been replaced since it was connected to.
    pub(super) async fn current_version(&self) -> Result<String, EngineError> {
        let version = self.client.version().await.map_err(|e| self.error("", "", e))?;
        Ok(version.version.unwrap_or_else(|| self.version.clone()))
    }

    /// Events of containers and networks, understood by `convert`, from the moment that this returns.
    pub(super) async fn events_as(
        &self,
        convert: fn(EventMessage) -> Option<Event>,
    ) -> Result<BoxStream<'static, Event>, EngineError> {
        // {"type":["container","network"]}
        self.agree().await?;
        let path = self.versioned("/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D");
        let response = http::request(&self.address, Method::GET, &path).await;
        let response = response.map_err(|e| self.http_error("container", "", e))?;
        let lines = http::reader(response).lines();
        // Ends at the end of the answer, and at the first line that cannot be read: events would be missing after it.
        let events = stream::unfold(lines, move |mut lines| async move {
            let line = lines.next_line().await.ok()??;
            match serde_json::from_str::<EventMessage>(&line) {
                Ok(message) => Some((convert(message), lines)),
                Err(e) => {
                    tracing::warn!("an event of the Engine cannot be read: {e}: {line}");
                    None
                }
            }
        });
        Ok(events.filter_map(|e| async { e }).boxed())
    }

    /// Who is meant by these references to containers: names, ids, or beginnings of ids. Asks about those alone.
    pub(super) async fn names_of(&self, references: &BTreeSet<String>) -> Result<Names, EngineError> {
        let mut names = Names::default();
        if references.is_empty() {
            return Ok(names);
        }
        // Patterns of regular expressions; in names, only the dot means anything there.
        let patterns = references.iter().map(|name| format!("^/?{}$", name.replace('.', "\\."))).collect();
        names.add_containers(&self.list(true, &BTreeMap::from([("name".to_owned(), patterns)])).await?);
        let is_id = |r: &&String| !r.is_empty() && r.bytes().all(|b| b.is_ascii_hexdigit());
        let ids: Vec<String> =
            references.iter().filter(|r| names.container(r).is_none()).filter(is_id).cloned().collect();
        if !ids.is_empty() {
            names.add_containers(&self.list(true, &BTreeMap::from([("id".to_owned(), ids)])).await?);
        }
        Ok(names)
    }

    /// Learns networks' names, of those whose names have one of `parts` in them; of all without any. Returns their ids.
    async fn network_names(&self, names: &mut Names, parts: Vec<String>) -> Result<Vec<String>, EngineError> {
        let filters: HashMap<String, Vec<String>> =
            if parts.is_empty() { HashMap::new() } else { HashMap::from([("name".to_owned(), parts)]) };
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let listed = self.client.list_networks(Some(options)).await;
        let listed = listed.map_err(|e| self.error("network", "", e))?;
        let found: Vec<(String, String)> = listed.iter().filter_map(convert::network_name).collect();
        for (name, id) in &found {
            names.add_network(name.clone(), id.clone());
        }
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, EngineError> {
        let id = reference("container", id)?;
        let inspect = self.client.inspect_container(id, None::<InspectContainerOptions>).await;
        inspect.map_err(|e| self.error("container", id, e))
    }

    async fn inspect_with(&self, id: &str, names: &Names) -> Result<Container, EngineError> {
        convert::container(self.inspect(id).await?, names).ok_or_else(|| no_id("container", id))
    }

    /// One container of a snapshot: `None` when it has vanished since it was listed.
    async fn listed_container(
        &self,
        summary: &ContainerSummary,
        names: &Names,
    ) -> Result<Option<Container>, EngineError> {
        let Some(id) = summary.id.as_deref() else { return Ok(None) };
        inspected_or_listed(self.inspect_with(id, names), summary, names).await
    }

    /// One network of a snapshot: `None` when it has vanished since it was listed.
    async fn listed_network(&self, id: &str) -> Result<Option<Network>, EngineError> {
        match self.network(id).await {
            Ok(network) => Ok(Some(network)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn snapshot(&self) -> Result<Snapshot, EngineError> {
        let mut names = Names::default();
        let listed = self.list(true, &BTreeMap::new()).await?;
        names.add_containers(&listed);
        let network_ids = self.network_names(&mut names, Vec::new()).await?;

        let questions: Vec<_> = network_ids.iter().map(|id| self.listed_network(id)).collect();
        let networks: Vec<Option<Network>> =
            stream::iter(questions).buffer_unordered(CONCURRENCY).try_collect().await?;
        let questions: Vec<_> = listed.iter().map(|summary| self.listed_container(summary, &names)).collect();
        let containers: Vec<Option<Container>> =
            stream::iter(questions).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(Snapshot {
            containers: containers.into_iter().flatten().map(|c| (c.id.clone(), c)).collect(),
            networks: networks.into_iter().flatten().map(|n| (n.id.clone(), n)).collect(),
        })
    }

    async fn container(&self, id: &str) -> Result<Container, EngineError> {
        let inspect = self.inspect(id).await?;
        let (containers, networks) = convert::names_needed(&inspect);
        let mut names = self.names_of(&containers).await?;
        if !networks.is_empty() {
            self.network_names(&mut names, networks.into_iter().collect()).await?;
        }
        convert::container(inspect, &names).ok_or_else(|| no_id("container", id))
    }

    async fn network(&self, id: &str) -> Result<Network, EngineError> {
        let id = reference("network", id)?;
        let inspect = self.client.inspect_network(id, None::<InspectNetworkOptions>).await;
        let inspect = inspect.map_err(|e| self.error("network", id, e))?;
        convert::network(inspect).ok_or_else(|| no_id("network", id))
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>, EngineError> {
        self.events_as(convert::event).await
    }

    async fn version(&self) -> Result<String, EngineError> {
        Ok(format!("Docker Engine {}", self.current_version().await?))
    }
}

/// A name or id that may stand in a request's path. Docker's names are `[a-zA-Z0-9][a-zA-Z0-9_.-]*`: no other can exist.
fn reference<'a>(kind: &'static str, name: &'a str) -> Result<&'a str, EngineError> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let plain = bare.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if plain { Ok(bare) } else { Err(EngineError::NotFound { kind, name: name.to_owned() }) }
}

/// A listed container as its inspection tells of it, or its summary where that takes long: `None` when it has vanished.
pub(super) async fn inspected_or_listed(
    inspected: impl Future<Output = Result<Container, EngineError>>,
    summary: &ContainerSummary,
    names: &Names,
) -> Result<Option<Container>, EngineError> {
    let patience = match summary.state {
        Some(ContainerSummaryStateEnum::RUNNING) => RUNNING_PATIENCE,
        _ => STARTING_PATIENCE,
    };
    match tokio::time::timeout(patience, inspected).await {
        Ok(Ok(container)) => Ok(Some(container)),
        Ok(Err(EngineError::NotFound { .. })) => Ok(None),
        Ok(Err(gone @ EngineError::Unreachable { .. })) => Err(gone),
        Ok(Err(EngineError::Refused(_))) | Err(_) => Ok(convert::container_from_summary(summary, names)),
    }
}

/// Who an Engine is, and the versions of the API that it speaks. The question itself names none.
async fn ask(address: &Address) -> Result<(SystemVersion, Range), EngineError> {
    let patience = Duration::from_secs(REQUEST_TIMEOUT_SECONDS);
    let answer = match tokio::time::timeout(patience, http::json(address, "/version")).await {
        Ok(Err(HttpError::Status(status, message))) => {
            let said = one_line(&message);
            return Err(EngineError::Refused(format!(
                "what answers at {address} does not tell its version ({status}): {said}"
            )));
        }
        Ok(answer) => answer.map_err(|e| explain_http(address, "", "", e))?,
        Err(_) => return Err(unreachable_at(address, "no answer in time".to_owned())),
    };
    let version: SystemVersion = serde_json::from_value(answer)
        .map_err(|e| EngineError::Refused(format!("the answer to /version at {address} is no engine's: {e}")))?;
    let range = Range::of(&version, &address.to_string())?;
    Ok((version, range))
}

fn explain_http(address: &Address, kind: &'static str, name: &str, e: HttpError) -> EngineError {
    match e {
        HttpError::Transport(reason) => unreachable_at(address, reason),
        HttpError::Status(StatusCode::NOT_FOUND, _) => EngineError::NotFound { kind, name: name.to_owned() },
        HttpError::Status(_, message) => EngineError::Refused(one_line(&message)),
    }
}

fn explain(address: &Address, kind: &'static str, name: &str, e: bollard::errors::Error) -> EngineError {
    use bollard::errors::Error;
    match e {
        Error::DockerResponseServerError { status_code: 404, .. } if !kind.is_empty() => {
            EngineError::NotFound { kind, name: name.to_owned() }
        }
        Error::DockerResponseServerError { message, .. } => EngineError::Refused(one_line(&message)),
        Error::DockerStreamError { error } => EngineError::Refused(one_line(&error)),
        Error::RequestTimeoutError => unreachable_at(address, "no answer in time".to_owned()),
        Error::SocketNotFoundError(_) => unreachable_at(address, "no such socket".to_owned()),
        e @ (Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. }) => {
            unreachable_at(address, innermost(&e))
        }
        e => EngineError::Refused(one_line(&e.to_string())),
    }
}

/// The Engine answered about something else.
pub(super) fn no_id(kind: &str, name: &str) -> EngineError {
    EngineError::Refused(format!("the Engine's answer about {kind} {name} names no id"))
}

fn unreachable_at(address: &Address, reason: String) -> EngineError {
    EngineError::Unreachable { address: address.to_string(), reason }
}

/// The cause at the bottom: `Connection refused (os error 111)`, not `client error (Connect)`.
fn innermost(e: &(dyn std::error::Error + 'static)) -> String {
    let mut e = e;
    while let Some(source) = e.source() {
        e = source;
    }
    one_line(&e.to_string())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_go_into_a_path() {
        assert_eq!(reference("container", "/web_1.a-b").unwrap(), "web_1.a-b");
        for bad in ["", "/", "../images/x", "a/b", "a?all=1", "-x", "ü"] {
            let Err(EngineError::NotFound { name, .. }) = reference("container", bad) else {
                panic!("{bad} was taken")
            };
            assert_eq!(name, bad);
        }
    }

    #[tokio::test]
    async fn no_engine_is_one_clear_line() {
        let dir = std::env::temp_dir().join("runtime-no-engine.sock");
        let error = DockerEngine::connect(Some(&format!("unix://{}", dir.display()))).await.unwrap_err().to_string();
        assert!(error.contains("runtime-no-engine.sock") && error.contains("--docker-host"), "{error}");
        let error = DockerEngine::connect(Some("ftp://x")).await.unwrap_err().to_string();
        assert!(error.contains("\"ftp://x\""), "{error}");
    }
}
