//! From a request to a container of the Engine.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, ImageInspect, NetworkingConfig, PortBinding, PortMap,
};

use super::Failure;
use super::plan::Plan;
use super::request::{NetworkMode, Request};
use crate::engine::EngineError;
use crate::engine::docker::{ApiVersion, DockerEngine};
use crate::engine::podman::{LINKS_LABEL, links_label};
use crate::model::Port;
use crate::model::environment::merge_environment;
use crate::model::publish::PublishRequest;

/// The ports that an image exposes.
pub(super) fn image_ports(image: &ImageInspect) -> Vec<Port> {
    let ports = image.config.iter().filter_map(|c| c.exposed_ports.as_ref()).flatten();
    ports.filter_map(|p| p.parse().ok()).collect()
}

/// Whether the Engine itself puts the links' variables into the container's environment: on its default bridge, before
/// Docker 29.
pub(super) fn engine_writes_link_variables(request: &Request, api: ApiVersion) -> bool {
    request.network == NetworkMode::DefaultBridge && api < ApiVersion::NO_LINK_ENVIRONMENT
}

/// Hands the links over to a label, for an Engine that refuses them.
pub(super) fn put_links_into_label(request: &mut Request, plan: &Plan) {
    request.links.clear();
    let made = links_label(plan.links.iter().map(|l| (l.source_id.as_str(), l.alias.as_str())));
    let given = request.labels.remove(LINKS_LABEL).unwrap_or_default();
    request.labels.insert(LINKS_LABEL.to_owned(), format!("{given} {made}").trim_start().to_owned());
}

/// The container's environment with what its links add. The variables of the flags and of the image win, as in Docker.
pub(super) fn with_link_variables(request: &Request, image: &ImageInspect, plan: Plan) -> Vec<String> {
    let image_env = image.config.iter().filter_map(|c| c.env.as_ref()).flatten();
    let set: Vec<&str> = image_env.filter_map(|line| line.split('=').next()).collect();
    let links = plan.links.into_iter().flat_map(|l| l.environment).filter(|(k, _)| !set.contains(&k.as_str()));
    merge_environment(&request.env, links.collect())
}

/// Creates the container.
pub(super) async fn create(request: &Request, engine: &DockerEngine) -> Result<(String, Vec<String>), Failure> {
    // As Docker's own client: the Engine's refusal is 125.
    engine.create(request.name.as_deref(), body(request)).await.map_err(engine_failure)
}

fn body(request: &Request) -> ContainerCreateBody {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let attached = !request.detach;
    let links = request.links.iter().map(ToString::to_string).collect();
    let custom = match &request.network {
        NetworkMode::Custom(name) => Some(name.clone()),
        _ => None,
    };
    let networking_config = custom.as_ref().filter(|_| !request.links.is_empty()).map(|name| {
        let endpoint = EndpointSettings { links: some(&links), ..Default::default() };
        NetworkingConfig { endpoints_config: Some(HashMap::from([(name.clone(), endpoint)])) }
    });
    ContainerCreateBody {
        hostname: request.hostname.clone(),
        user: request.user.clone(),
        attach_stdin: Some(attached && request.interactive),
        attach_stdout: Some(attached),
        attach_stderr: Some(attached),
        exposed_ports: Some(request.exposed_ports().iter().map(Port::to_string).collect()),
        tty: Some(request.tty),
        open_stdin: Some(request.interactive),
        stdin_once: Some(attached && request.interactive),
        env: some(&request.env),
        cmd: some(&request.command),
        image: Some(request.image.clone()),
        volumes: some(&request.volumes),
        working_dir: request.workdir.clone(),
        entrypoint: request.entrypoint.clone().map(|e| vec![e]),
        labels: Some(request.labels.clone().into_iter().collect()),
        host_config: Some(HostConfig {
            binds: some(&request.binds),
            network_mode: Some(request.network.name().to_owned()),
            port_bindings: Some(port_bindings(&request.publications)),
            restart_policy: request.restart.clone(),
            auto_remove: Some(request.rm),
            publish_all_ports: Some(request.publish_all),
            links: if custom.is_none() { some(&links) } else { None },
            ..Default::default()
        }),
        networking_config,
        ..Default::default()
    }
}

fn port_bindings(publications: &[PublishRequest]) -> PortMap {
    let mut bindings = PortMap::new();
    for publication in publications {
        let host_port = match &publication.host_ports {
            None => String::new(),
            Some(range) if range.start() == range.end() => range.start().to_string(),
            Some(range) => format!("{}-{}", range.start(), range.end()),
        };
        let binding = PortBinding {
            // Nothing is every address of both families.
            host_ip: Some(publication.host_addr.map(|a| a.to_string()).unwrap_or_default()),
            host_port: Some(host_port),
        };
        let port = bindings.entry(publication.container_port.to_string()).or_default();
        port.get_or_insert_default().push(binding);
    }
    bindings
}

/// The Engine's refusal to start a container, with the exit status that Docker's own client gives it: 127 for a command that
/// is not there, 126 for one that cannot be executed. A taken port or a stopped source is an operation that failed.
pub(super) fn start_failure(e: EngineError) -> Failure {
    let text = e.to_string().to_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&["port is already allocated", "address already in use", "cannot link to"]) {
        return Failure::Failed(e.into());
    }
    if says(&["executable file not found", "no such file or directory"]) {
        return Failure::FailedWith(127, e.into());
    }
    if says(&["permission denied", "is a directory"]) {
        return Failure::FailedWith(126, e.into());
    }
    engine_failure(e)
}

fn engine_failure(e: EngineError) -> Failure {
    match e {
        EngineError::Refused(_) => Failure::FailedWith(125, e.into()),
        e => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::request::tests::{NO_ENV, request};
    use super::*;

    fn created(arguments: &[&str]) -> Value {
        serde_json::to_value(body(&request(arguments, NO_ENV).unwrap())).unwrap()
    }

    #[test]
    fn ports_and_links_on_the_default_bridge() {
        let body = created(&[
            "-d",
            "-P",
            "-p",
            "80",
            "-p",
            "127.0.0.1:8080:80",
            "-p",
            "[::1]:9-10:90/udp",
            "--link",
            "db:webdb",
            "nginx",
            "-p",
            "x",
        ]);
        assert_eq!(
            body["HostConfig"]["PortBindings"],
            json!({
                "80/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "127.0.0.1", "HostPort": "8080"}],
                "90/udp": [{"HostIp": "::1", "HostPort": "9-10"}],
            })
        );
        assert_eq!(body["HostConfig"]["PublishAllPorts"], true);
        assert_eq!(body["HostConfig"]["Links"], json!(["db:webdb"]));
        assert_eq!(body["ExposedPorts"]["80/tcp"], json!({}));
        assert_eq!((&body["Image"], &body["Cmd"]), (&json!("nginx"), &json!(["-p", "x"])));
        assert_eq!(body["NetworkingConfig"], Value::Null);
        assert_eq!((&body["AttachStdout"], &body["OpenStdin"]), (&json!(false), &json!(false)));
    }

    #[test]
    fn links_on_a_network_of_the_users_own() {
        let body = created(&["-i", "--network", "app", "--link", "db", "--entrypoint", "", "nginx"]);
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["app"]["Links"], json!(["db:db"]));
        assert_eq!(body["HostConfig"]["Links"], Value::Null);
        assert_eq!(body["HostConfig"]["NetworkMode"], "app");
        assert_eq!(body["Entrypoint"], json!([""]));
        assert_eq!((&body["AttachStdin"], &body["StdinOnce"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn links_in_a_label_are_kept_from_the_engine() {
        let arguments =
            ["--link", "db:webdb", "--label", "runtime.links=cache", "--label", "a=b", "--name", "web", "x"];
        let mut request = request(&arguments, NO_ENV).unwrap();
        let plan = super::super::plan::tests::plan_with_link(&request);
        put_links_into_label(&mut request, &plan);
        let body = serde_json::to_value(body(&request)).unwrap();
        assert_eq!(body["HostConfig"]["Links"], Value::Null);
        let source = &plan.links[0].source_id;
        assert_eq!(body["Labels"], json!({"a": "b", "runtime.links": format!("cache {source}:webdb")}));
    }

    #[test]
    fn statuses_of_docker_run() {
        for (text, status) in [
            ("OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown", 127),
            ("exec: \"/x\": stat /x: no such file or directory: unknown", 127),
            ("exec: \"/etc/passwd\": permission denied: unknown", 126),
            (
                "crun: executable file `x` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command \
              that was not found",
                127,
            ),
            ("crun: open executable: Permission denied: OCI permission denied", 126),
            ("cannot listen on the TCP port: listen tcp4 :80: bind: address already in use", 1),
            ("driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", 1),
            ("network app not found", 125),
        ] {
            assert_eq!(start_failure(EngineError::Refused(text.into())).status(), status, "{text}");
        }
    }

    #[test]
    fn who_writes_link_variables() {
        let default = request(&["--link", "db", "x"], NO_ENV).unwrap();
        let custom = request(&["--link", "db", "--network", "app", "x"], NO_ENV).unwrap();
        assert!(engine_writes_link_variables(&default, ApiVersion(1, 41)));
        assert!(!engine_writes_link_variables(&default, ApiVersion(1, 52)));
        assert!(!engine_writes_link_variables(&custom, ApiVersion(1, 41)));
    }
}
