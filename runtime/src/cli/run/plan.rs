//! What a `run` comes to, before anything exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::request::Request;
use super::{Failure, output};
use crate::model::environment::link_environment;
use crate::model::link::LinkRequest;
use crate::model::{Container, Network, Port};

/// What only the Engine knows.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The ports that the image exposes; asked for with `-P` alone.
    pub(super) image_ports: Vec<Port>,
    /// The sources of the links, by the name that the link has for them.
    pub(super) sources: BTreeMap<String, Container>,
    /// The network of the container; asked for with links alone.
    pub(super) network: Option<Network>,
}

/// One container port, and where it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedPublication {
    pub(super) addresses: Vec<IpAddr>,
    /// The host ports to choose from; `None` for a random one.
    pub(super) host_ports: Option<RangeInclusive<u16>>,
    pub(super) container_port: Port,
}

/// One link, with what it adds to the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedLink {
    pub(super) source: String,
    pub(super) source_id: String,
    pub(super) alias: String,
    pub(super) address: IpAddr,
    pub(super) environment: Vec<(String, String)>,
}

/// Everything resolved.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    name: Option<String>,
    image: String,
    command: Vec<String>,
    network: String,
    exposed: Vec<Port>,
    environment: Vec<String>,
    pub(super) publications: Vec<PlannedPublication>,
    pub(super) links: Vec<PlannedLink>,
}

/// The failure where there is no Engine to ask: which flag needs one.
pub(super) fn needs_engine(request: &Request, failure: Failure) -> Failure {
    let what = match request.links.first() {
        Some(link) => format!("--link \"{link}\" needs the Engine"),
        None => "--publish-all needs the Engine".to_owned(),
    };
    match failure {
        Failure::Failed(e) => Failure::Failed(e.context(what)),
        other => other,
    }
}

/// The failure where a link's source does not exist.
pub(super) fn no_source(link: &LinkRequest) -> Failure {
    let LinkRequest { source, alias } = link;
    Failure::Failed(anyhow::anyhow!("could not get container for {source}: no such container to link to as {alias}"))
}

/// Resolves a request.
///
/// # Errors
/// Links to what does not run, or is on another network.
pub(super) fn plan(request: &Request, context: &Context) -> Result<Plan, Failure> {
    let every = || vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut publications: Vec<PlannedPublication> = request
        .publications
        .iter()
        .map(|p| PlannedPublication {
            addresses: p.host_addr.map_or_else(every, |a| vec![a]),
            host_ports: p.host_ports.clone(),
            container_port: p.container_port,
        })
        .collect();
    let mut exposed: BTreeSet<Port> = request.exposed_ports();
    exposed.extend(&context.image_ports);
    if request.publish_all {
        let explicit: BTreeSet<Port> = publications.iter().map(|p| p.container_port).collect();
        publications.extend(exposed.difference(&explicit).map(|port| PlannedPublication {
            addresses: every(),
            host_ports: None,
            container_port: *port,
        }));
    }
    let recipient = request.name.as_deref().unwrap_or_default();
    let links = request.links.iter().map(|l| link(l, recipient, context)).collect::<Result<_, _>>()?;
    Ok(Plan {
        name: request.name.clone(),
        image: request.image.clone(),
        command: request.command.clone(),
        network: request.network.inspect_name().to_owned(),
        exposed: exposed.into_iter().collect(),
        environment: request.env.clone(),
        publications,
        links,
    })
}

fn link(link: &LinkRequest, recipient: &str, context: &Context) -> Result<PlannedLink, Failure> {
    let (Some(source), Some(network)) = (context.sources.get(&link.source), &context.network) else {
        return Err(no_source(link));
    };
    let (name, alias) = (&source.name, &link.alias);
    if !source.running {
        // Docker's words.
        let message = format!("Cannot link to a non running container: /{name} AS /{recipient}/{alias}");
        return Err(Failure::Failed(anyhow::anyhow!(message)));
    }
    let endpoint = source.endpoints.iter().find(|e| e.network == network.id);
    let address = endpoint.and_then(|e| e.ipv4.map(IpAddr::from).or(e.ipv6.map(IpAddr::from)));
    let Some(address) = address else {
        let which = if network.is_default_bridge { "the default network".to_owned() } else { network.name.clone() };
        let message = format!("Cannot link to /{name}, as it does not belong to {which}");
        return Err(Failure::Failed(anyhow::anyhow!(message)));
    };
    Ok(PlannedLink {
        source: name.clone(),
        source_id: source.id.clone(),
        alias: alias.clone(),
        address,
        environment: link_environment(recipient, alias, source, address),
    })
}

impl PlannedPublication {
    fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("addresses".into(), json!(self.addresses));
        let single = self.host_ports.as_ref().filter(|r| r.start() == r.end());
        fields.insert("host_port".into(), json!(single.map(|r| *r.start())));
        if let (None, Some(range)) = (single, &self.host_ports) {
            fields.insert("host_port_range".into(), json!([range.start(), range.end()]));
        }
        fields.insert("container_port".into(), json!(self.container_port.number));
        fields.insert("protocol".into(), json!(self.container_port.protocol.name()));
        Value::Object(fields)
    }

    fn cells(&self) -> Vec<String> {
        let addresses: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
        let host = match &self.host_ports {
            None => "random".to_owned(),
            Some(range) if range.start() == range.end() => range.start().to_string(),
            Some(range) => format!("one of {}-{}", range.start(), range.end()),
        };
        vec![addresses.join(", "), host, self.container_port.to_string()]
    }
}

impl PlannedLink {
    fn json(&self) -> Value {
        let environment: Map<_, _> = self.environment.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        json!({
            "source": self.source,
            "source_id": self.source_id,
            "alias": self.alias,
            "address": self.address,
            "environment": environment,
        })
    }
}

impl Plan {
    /// One object: `publications`, `links`, and what they belong to.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "image": self.image,
            "command": self.command,
            "network": self.network,
            "exposed": self.exposed,
            "publications": self.publications.iter().map(PlannedPublication::json).collect::<Vec<_>>(),
            "links": self.links.iter().map(PlannedLink::json).collect::<Vec<_>>(),
            "environment": self.environment,
        })
    }

    /// Publications, links and the links' variables, one under the other.
    pub(super) fn table(&self) -> String {
        let head = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let mut parts = Vec::new();
        if self.publications.is_empty() {
            parts.push("no publications\n".to_owned());
        } else {
            let mut lines = vec![head(["HOST ADDRESS", "HOST PORT", "CONTAINER PORT"])];
            lines.extend(self.publications.iter().map(PlannedPublication::cells));
            parts.push(output::table(&lines));
        }
        if !self.links.is_empty() {
            let mut lines = vec![head(["SOURCE", "ALIAS", "ADDRESS"])];
            lines.extend(self.links.iter().map(|l| vec![l.source.clone(), l.alias.clone(), l.address.to_string()]));
            parts.push(output::table(&lines));
            let variables = self.links.iter().flat_map(|l| &l.environment);
            parts.push(variables.map(|(k, v)| format!("{k}={v}\n")).collect());
        }
        parts.join("\n")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::request::tests::{NO_ENV, request};
    use super::*;

    fn container(name: &str, running: bool) -> Container {
        let inspect = serde_json::from_str(include_str!("../../engine/fixtures/container_web.json")).unwrap();
        let container = crate::engine::docker::convert::container(inspect, &Default::default()).unwrap();
        let exposed = vec!["5432/tcp".parse().unwrap()];
        Container { name: name.into(), running, exposed, env: vec!["PG_VERSION=9.3".into()], ..container }
    }

    fn network(json: &str) -> Option<Network> {
        crate::engine::docker::convert::network(serde_json::from_str(json).unwrap())
    }

    fn context(running: bool) -> Context {
        Context {
            image_ports: vec!["80/tcp".parse().unwrap(), "443/tcp".parse().unwrap()],
            sources: BTreeMap::from([("db".to_owned(), container("db", running))]),
            network: network(include_str!("../../engine/fixtures/network_bridge.json")),
        }
    }

    /// The plan of a request that links to a container `db` that runs.
    pub(in crate::cli::run) fn plan_with_link(request: &Request) -> Plan {
        plan(request, &context(true)).unwrap()
    }

    #[test]
    fn publications_without_an_engine() {
        let request =
            request(&["-p", "8080:80", "-p", "[::1]::53/udp", "-p", "8000-8009:90", "nginx"], NO_ENV).unwrap();
        let plan = plan(&request, &Context::default()).unwrap().json();
        assert_eq!(
            plan["publications"],
            json!([
                {"addresses": ["0.0.0.0", "::"], "host_port": 8080, "container_port": 80, "protocol": "tcp"},
                {"addresses": ["::1"], "host_port": null, "container_port": 53, "protocol": "udp"},
                {"addresses": ["0.0.0.0", "::"], "host_port": null, "host_port_range": [8000, 8009],
                 "container_port": 90, "protocol": "tcp"},
            ])
        );
        assert_eq!(plan["exposed"], json!(["80/tcp", "90/tcp", "53/udp"]));
        assert_eq!(plan["links"], json!([]));
    }

    #[test]
    fn publish_all_leaves_explicit_ports_alone() {
        let request = request(&["-P", "-p", "127.0.0.1:8080:80", "--expose", "9000", "nginx"], NO_ENV).unwrap();
        let plan = plan(&request, &context(true)).unwrap();
        let shown: Vec<_> = plan.publications.iter().map(|p| p.cells().join(" ")).collect();
        assert_eq!(shown, ["127.0.0.1 8080 80/tcp", "0.0.0.0, :: random 443/tcp", "0.0.0.0, :: random 9000/tcp"]);
    }

    #[test]
    fn links_have_source_alias_and_environment() {
        let request = request(&["--name", "web", "--link", "db:webdb", "nginx"], NO_ENV).unwrap();
        let plan = plan(&request, &context(true)).unwrap();
        let json = plan.json();
        assert_eq!((&json["links"][0]["source"], &json["links"][0]["alias"]), (&json!("db"), &json!("webdb")));
        assert_eq!(json["links"][0]["environment"]["WEBDB_PORT_5432_TCP_ADDR"], "172.17.0.3");
        assert_eq!(json["links"][0]["environment"]["WEBDB_NAME"], "/web/webdb");
        assert_eq!(json["links"][0]["environment"]["WEBDB_ENV_PG_VERSION"], "9.3");
        assert!(plan.table().contains("\ndb        webdb     172.17.0.3\n"), "{}", plan.table());
    }

    #[test]
    fn links_that_cannot_be() {
        let request = request(&["--name", "web", "--link", "db:webdb", "nginx"], NO_ENV).unwrap();
        let message = |context: &Context| plan(&request, context).err().and_then(|f| f.message()).unwrap();
        assert_eq!(message(&context(false)), "Cannot link to a non running container: /db AS /web/webdb");
        let elsewhere = network(include_str!("../../engine/fixtures/network_app.json"));
        let expected = "Cannot link to /db, as it does not belong to app";
        assert_eq!(message(&Context { network: elsewhere, ..context(true) }), expected);
        assert!(message(&Context { sources: BTreeMap::new(), ..context(true) }).contains("db"));
    }
}
