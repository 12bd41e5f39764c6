//! The list of containers that Podman's compatible API gives, which the client library cannot read as it is.

use std::collections::BTreeMap;

use bollard::models::ContainerSummary;
use serde_json::Value;

use super::DockerEngine;
use crate::engine::EngineError;

/// The compatible API's list of containers: Podman writes states there that are none of Docker's.
pub(super) async fn list(
    compatible: &DockerEngine,
    all: bool,
    filters: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<ContainerSummary>, EngineError> {
    let filters = serde_json::to_string(filters).unwrap_or_default();
    let filters: String = filters.bytes().map(|b| format!("%{b:02X}")).collect();
    let path = compatible.versioned(&format!("/containers/json?all={all}&filters={filters}"));
    let mut listed = compatible.get("container", "", &path).await?;
    put_states_as_docker(&mut listed);
    serde_json::from_value(listed)
        .map_err(|e| EngineError::Refused(format!("Podman's list of containers cannot be understood: {e}")))
}

/// Gives listed containers states of Docker's: `stopped` is one that has ended and is not tidied up after yet.
pub(in crate::engine) fn put_states_as_docker(listed: &mut Value) {
    for container in listed.as_array_mut().into_iter().flatten() {
        let Some(state) = container.get_mut("State") else { continue };
        let docker = match state.as_str().unwrap_or_default() {
            "stopped" => "exited",
            "configured" | "initialized" => "created",
            known @ ("created" | "running" | "paused" | "exited" | "removing" | "stopping") => known,
            _ => "",
        };
        *state = docker.into();
    }
}
