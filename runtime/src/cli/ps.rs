//! `runtime ps`: the Engine's containers, in Docker's columns, with live publications among the ports.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::ContainerSummary;
use clap::Args;
use runtime_api::LivePublication;
use serde_json::{Map, Value, json};

use super::display::{self, ShownPort};
use super::output::{self, Column, Format};
use super::{Failure, Globals};
use crate::engine::docker::own_name;

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show those alone that match, such as name=web, id=4c01, status=exited, label=tier=front
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json (one object a line), table, or a Go template such as {{.Names}}
    #[arg(long)]
    format: Option<String>,
}

const COLUMNS: [Column; 7] = [
    Column { field: "ID", heading: "CONTAINER ID" },
    Column { field: "Image", heading: "IMAGE" },
    Column { field: "Command", heading: "COMMAND" },
    Column { field: "RunningFor", heading: "CREATED" },
    Column { field: "Status", heading: "STATUS" },
    Column { field: "Ports", heading: "PORTS" },
    Column { field: "Names", heading: "NAMES" },
];

/// The filters that the Engine knows for containers.
const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

pub(super) async fn run(args: PsArgs, globals: &Globals) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let filters = parse_filters(&args.filter)?;
    let engine = globals.engine().await?;
    // Whoever asks for a state asks for those that do not run as well.
    let all = args.all || filters.contains_key("status") || filters.contains_key("exited");
    let listed = engine.control.list(all, &filters).await?;
    let live = globals.datapath().live_publications_if_up().await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());

    let rows: Vec<_> = listed.iter().map(|c| row(c, &live, args.no_trunc, now)).collect();
    if args.quiet {
        let ids = rows.iter().filter_map(|r| r.get("ID")?.as_str());
        return output::print(&ids.map(|id| format!("{id}\n")).collect::<String>());
    }
    output::print_rows(&format, &COLUMNS, &rows)
}

fn parse_filters(filters: &[String]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for filter in filters {
        let Some((key, value)) = filter.split_once('=') else {
            return Err(Failure::Usage(format!("invalid --filter {filter:?}: expected KEY=VALUE")));
        };
        let key = key.trim().to_lowercase();
        if !FILTERS.contains(&key.as_str()) {
            let known = FILTERS.join(", ");
            return Err(Failure::Usage(format!("invalid --filter {filter:?}: the keys are {known}")));
        }
        parsed.entry(key).or_default().push(value.trim().to_owned());
    }
    Ok(parsed)
}

fn row(container: &ContainerSummary, live: &[LivePublication], whole: bool, now: u64) -> Map<String, Value> {
    let id = container.id.as_deref().unwrap_or_default();
    let short = |text: &str| text.chars().take(12).collect::<String>();
    let names: Vec<&str> = match (whole, own_name(container)) {
        // With the names that links give it.
        (true, _) => container.names.iter().flatten().map(|n| n.trim_start_matches('/')).collect(),
        (false, name) => name.into_iter().collect(),
    };
    let image = container.image.as_deref().unwrap_or_default();
    let image = match image.strip_prefix("sha256:") {
        Some(digest) if !whole => short(digest),
        _ => image.to_owned(),
    };
    let created = container.created.unwrap_or(0);
    let age = now.saturating_sub(u64::try_from(created).unwrap_or(0));
    let labels = sorted(container.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")));
    let networks = container.network_settings.iter().filter_map(|s| s.networks.as_ref()).flat_map(|n| n.keys());
    let mounts: Vec<_> = container.mounts.iter().flatten().collect();
    let volumes = mounts.iter().filter(|m| m.driver.as_deref() == Some("local")).count();
    let mounts = mounts.iter().filter_map(|m| m.name.clone().filter(|n| !n.is_empty()).or_else(|| m.source.clone()));

    let mut ports: Vec<ShownPort> = container.ports.iter().flatten().map(shown_port).collect();
    let own = || live.iter().filter(|l| l.container == id);
    for taken in own().filter(|l| l.closed).map(|l| ShownPort::from(&l.publication)) {
        let before = ports.len();
        ports.retain(|p| *p != taken);
        // Exposed alone, as Docker shows it.
        if ports.len() < before && !ports.iter().any(|p| (p.private, &p.protocol) == (taken.private, &taken.protocol)) {
            ports.push(ShownPort { host: None, ..taken });
        }
    }
    for published in own().filter(|l| !l.closed).map(|l| ShownPort::from(&l.publication)) {
        // No longer exposed alone.
        ports.retain(|p| p.host.is_some() || (p.private, &p.protocol) != (published.private, &published.protocol));
        ports.push(published);
    }

    let fields = [
        ("Command", json!(display::command(container.command.as_deref().unwrap_or_default(), whole))),
        ("CreatedAt", json!(display::timestamp(created))),
        ("ID", json!(if whole { id.to_owned() } else { short(id) })),
        ("Image", json!(image)),
        ("Labels", json!(labels)),
        ("LocalVolumes", json!(volumes.to_string())),
        ("Mounts", json!(sorted(mounts))),
        ("Names", json!(names.join(","))),
        ("Networks", json!(sorted(networks.cloned()))),
        ("Ports", json!(display::ports(ports))),
        ("RunningFor", json!(format!("{} ago", display::duration(age)))),
        ("State", json!(container.state.map(|s| s.to_string()).unwrap_or_default())),
        ("Status", json!(container.status.as_deref().unwrap_or_default())),
    ];
    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn shown_port(port: &bollard::models::PortSummary) -> ShownPort {
    let address = port.ip.as_deref().and_then(|ip| ip.parse().ok());
    ShownPort {
        private: port.private_port,
        host: address.zip(port.public_port.filter(|p| *p != 0)),
        protocol: port.typ.map(|t| t.to_string()).unwrap_or_default(),
    }
}

/// Docker's maps have no order; ours have one.
fn sorted(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_real_containers() {
        let listed: Vec<ContainerSummary> =
            serde_json::from_str(include_str!("../engine/fixtures/containers.json")).unwrap();
        let by_name = |name: &str| listed.iter().find(|c| own_name(c) == Some(name)).unwrap();
        let webc = by_name("webc");
        let publication = crate::model::Publication {
            host_addr: "0.0.0.0".parse().unwrap(),
            host_port: 8443,
            container_port: "443/tcp".parse().unwrap(),
        };
        let live = [LivePublication { container: webc.id.clone().unwrap(), publication, closed: false }];
        let shown = row(webc, &live, false, 1_795_545_969 + 120);
        for (field, value) in [
            ("ID", "1840ad6871f3"),
            ("Image", "web:1"),
            ("Command", "\"/bin/sleep 100000\""),
            ("RunningFor", "2 minutes ago"),
            ("Status", "Up 5 minutes"),
            ("Ports", "0.0.0.0:81->80/tcp, [::]:81->80/tcp, 0.0.0.0:8443->443/tcp"),
            ("Names", "webc"),
            ("Networks", "app"),
            ("State", "running"),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
        let taken = |host: &str| LivePublication {
            container: webc.id.clone().unwrap(),
            publication: crate::model::Publication {
                host_addr: host.parse().unwrap(),
                host_port: 81,
                container_port: "80/tcp".parse().unwrap(),
            },
            closed: true,
        };
        assert_eq!(row(webc, &[taken("::")], false, 0)["Ports"], "443/tcp, 0.0.0.0:81->80/tcp");
        assert_eq!(row(webc, &[taken("::"), taken("0.0.0.0")], false, 0)["Ports"], "80/tcp, 443/tcp");
        assert_eq!(row(by_name("db2"), &live, false, 0)["Names"], "db2");
        assert_eq!(row(by_name("db2"), &live, true, 0)["Names"], "db2,web/webdb");
        assert_eq!(row(by_name("db2"), &live, true, 0)["Ports"], "5432/tcp");
    }

    #[test]
    fn filters() {
        let parsed = parse_filters(&["label=a=b".into(), "label=c".into(), "name=web".into()]).unwrap();
        assert_eq!(parsed["label"], ["a=b", "c"]);
        for bad in ["web", "colour=red"] {
            let failure = parse_filters(&[bad.to_owned()]).expect_err("taken");
            assert!(failure.message().unwrap().contains(&format!("\"{bad}\"")));
        }
    }
}
