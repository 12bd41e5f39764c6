//! `runtime inspect`: what the Engine knows of containers, in its own JSON, with live publications among the ports.

use std::collections::HashMap;

use bollard::models::PortBinding;
use clap::Args;
use runtime_api::LivePublication;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};

use super::{Failure, Globals, output};
use crate::engine::EngineError;
use crate::engine::docker::convert;
use crate::model::Publication;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// json, or a Go template such as {{.NetworkSettings.Ports}}
    #[arg(short, long)]
    format: Option<String>,
    /// Names or ids of containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, globals: &Globals) -> Result<(), Failure> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(output::parse_template(text)?),
    };
    let engine = globals.engine().await?;
    let live = globals.datapath().live_publications_if_up().await?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.names {
        match engine.inspect(name).await {
            Ok(mut container) => {
                add_live(&mut container, &live);
                found.push(container);
            }
            Err(EngineError::NotFound { .. }) => missing.push(format!("No such object: {name}")),
            Err(e) => return Err(e.into()),
        }
    }
    match (&template, args.format.as_deref()) {
        (Some(template), _) => {
            for container in &found {
                output::print(&(output::render(template, container)? + "\n"))?;
            }
        }
        (None, Some("json")) => output::print(&format!("{}\n", Value::Array(found)))?,
        (None, _) => output::print(&pretty(&Value::Array(found))?)?,
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::Failed(anyhow::anyhow!(missing.join("; ")))) }
}

/// With four blanks, as Docker indents.
fn pretty(value: &Value) -> Result<String, Failure> {
    use serde::Serialize;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).map_err(anyhow::Error::from)?;
    Ok(String::from_utf8(text).map_err(anyhow::Error::from)? + "\n")
}

fn binding(publication: &Publication) -> Value {
    json!({"HostIp": publication.host_addr.to_string(), "HostPort": publication.host_port.to_string()})
}

/// Adds a container's live publications to its `NetworkSettings.Ports`, and removes those that were taken away.
pub(super) fn add_live(container: &mut Value, live: &[LivePublication]) {
    let Some(id) = container.get("Id").and_then(Value::as_str).map(str::to_owned) else { return };
    let Some(settings) = container.get_mut("NetworkSettings").and_then(Value::as_object_mut) else { return };
    let own = || live.iter().filter(|l| l.container == id);
    for publication in own().filter(|l| l.closed).map(|l| &l.publication) {
        let bindings = settings.get_mut("Ports").and_then(|p| p.get_mut(publication.container_port.to_string()));
        let Some(bindings) = bindings else { continue };
        if let Some(list) = bindings.as_array_mut() {
            list.retain(|b| *b != binding(publication));
            // As Docker has it for a port that is exposed alone.
            if list.is_empty() {
                *bindings = Value::Null;
            }
        }
    }
    for publication in own().filter(|l| !l.closed).map(|l| &l.publication) {
        let ports = settings.entry("Ports").or_insert_with(|| json!({}));
        if ports.is_null() {
            *ports = Value::Object(Map::new());
        }
        let Some(ports) = ports.as_object_mut() else { return };
        let bindings = ports.entry(publication.container_port.to_string()).or_insert(Value::Null);
        if bindings.is_null() {
            *bindings = Value::Array(Vec::new());
        }
        let binding = binding(publication);
        match bindings.as_array_mut() {
            Some(bindings) if !bindings.contains(&binding) => bindings.push(binding),
            _ => {}
        }
    }
}

/// The publications in a container's JSON.
pub(super) fn publications(container: &Value) -> Vec<Publication> {
    let ports = container.pointer("/NetworkSettings/Ports").cloned().unwrap_or_default();
    let ports: Option<HashMap<String, Option<Vec<PortBinding>>>> = serde_json::from_value(ports).unwrap_or_default();
    convert::publications(&ports.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(id: &str, host: &str, host_port: u16, port: &str) -> LivePublication {
        let container_port = port.parse().unwrap();
        let publication = Publication { host_addr: host.parse().unwrap(), host_port, container_port };
        LivePublication { container: id.into(), publication, closed: false }
    }

    #[test]
    fn live_publications_are_merged() {
        let mut container = json!({"Id": "a", "NetworkSettings": {"Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "81"}], "443/tcp": null}}});
        let before = container.clone();
        add_live(&mut container, &[live("b", "0.0.0.0", 1, "80/tcp")]);
        assert_eq!(container, before, "another's");
        add_live(
            &mut container,
            &[
                live("a", "0.0.0.0", 81, "80/tcp"),
                live("a", "::", 82, "80/tcp"),
                live("a", "127.0.0.1", 83, "443/tcp"),
                live("a", "0.0.0.0", 53, "53/udp"),
            ],
        );
        assert_eq!(
            container.pointer("/NetworkSettings/Ports"),
            Some(&json!({
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "81"}, {"HostIp": "::", "HostPort": "82"}],
                "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "83"}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
            }))
        );
        assert_eq!(publications(&container).len(), 4);
    }

    #[test]
    fn what_was_taken_away_is_gone() {
        let mut container = json!({"Id": "a", "NetworkSettings": {"Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "81"}, {"HostIp": "::", "HostPort": "81"}],
            "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "443"}]}}});
        let closed = |id, host, host_port, port| LivePublication { closed: true, ..live(id, host, host_port, port) };
        let taken = [
            closed("b", "::", 81, "80/tcp"),
            closed("a", "0.0.0.0", 81, "80/tcp"),
            closed("a", "0.0.0.0", 443, "443/tcp"),
            closed("a", "0.0.0.0", 9, "9/udp"),
            live("a", "0.0.0.0", 82, "80/tcp"),
        ];
        add_live(&mut container, &taken);
        assert_eq!(
            container.pointer("/NetworkSettings/Ports"),
            Some(&json!({
                "80/tcp": [{"HostIp": "::", "HostPort": "81"}, {"HostIp": "0.0.0.0", "HostPort": "82"}],
                "443/tcp": null,
            }))
        );
    }

    #[test]
    fn nothing_to_merge_into() {
        let mut container = json!({"Id": "a", "NetworkSettings": {"Ports": null}});
        add_live(&mut container, &[]);
        assert_eq!(container.pointer("/NetworkSettings/Ports"), Some(&Value::Null));
        assert_eq!(publications(&container), []);
        add_live(&mut container, &[live("a", "::1", 1, "2/tcp")]);
        assert_eq!(publications(&container).len(), 1);
    }

    #[test]
    fn four_blanks_and_the_engines_order() {
        let text = pretty(&json!([{"Z": 1, "A": []}])).unwrap();
        assert_eq!(text, "[\n    {\n        \"Z\": 1,\n        \"A\": []\n    }\n]\n");
    }
}
