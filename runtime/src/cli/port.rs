//! `runtime port`: where a container's ports are published.

use std::net::SocketAddr;

use clap::Args;

use super::{Failure, Globals, inspect, output};
use crate::model::{Port, Publication};

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// The container's name or id
    container: String,
    /// One port of it, such as 80 or 53/udp
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(super) async fn run(args: PortArgs, globals: &Globals) -> Result<(), Failure> {
    let port = args.port.as_deref().map(str::parse::<Port>).transpose();
    let port = port.map_err(|e| Failure::Usage(e.to_string()))?;
    let engine = globals.engine().await?;
    let mut container = engine.control.inspect_raw(&args.container).await?;
    inspect::add_live(&mut container, &globals.datapath().live_publications_if_up().await?);
    output::print(&list(&args.container, &inspect::publications(&container), port)?)
}

fn list(container: &str, publications: &[Publication], port: Option<Port>) -> Result<String, Failure> {
    let address = |p: &Publication| SocketAddr::new(p.host_addr, p.host_port);
    let Some(port) = port else {
        let mut all: Vec<_> = publications.iter().collect();
        all.sort_by_key(|p| (p.container_port.number, p.container_port.protocol.name(), p.host_addr, p.host_port));
        return Ok(all.iter().map(|p| format!("{} -> {}\n", p.container_port, address(p))).collect());
    };
    let found: String =
        publications.iter().filter(|p| p.container_port == port).map(|p| format!("{}\n", address(p))).collect();
    if found.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("No public port '{port}' published for {container}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Vec<Publication> {
        let web = include_str!("../engine/fixtures/container_web.json");
        inspect::publications(&serde_json::from_str(web).unwrap())
    }

    /// What `docker port` printed for the same container.
    #[test]
    fn all_ports_in_dockers_order() {
        let listed = list("web", &web(), None).unwrap();
        let expected =
            "53/udp -> 0.0.0.0:5353\n53/udp -> [::]:5353\n80/tcp -> 127.0.0.1:8080\n443/tcp -> 0.0.0.0:32771\n";
        assert!(listed.starts_with(expected), "{listed}");
        assert!(listed.ends_with("9002/tcp -> 0.0.0.0:32768\n9002/tcp -> [::]:32768\n"), "{listed}");
    }

    #[test]
    fn one_port() {
        let one = |port: &str| list("web", &web(), Some(port.parse().unwrap()));
        assert_eq!(one("53/udp").unwrap(), "0.0.0.0:5353\n[::]:5353\n");
        assert_eq!(one("80").unwrap(), "127.0.0.1:8080\n");
        for missing in ["81", "53"] {
            let failure = one(missing).expect_err("found");
            assert_eq!(failure.status(), 1);
            let expected = format!("No public port '{missing}/tcp' published for web");
            assert_eq!(failure.message(), Some(expected));
        }
    }
}
