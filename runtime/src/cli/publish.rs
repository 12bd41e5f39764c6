//! `runtime publish` and `runtime unpublish`: published ports of running containers.

use std::net::SocketAddr;

use clap::Args;
use serde_json::json;

use super::{Failure, Globals, output};
use crate::model::Publication;
use crate::model::publish::parse_publish;

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The container's name or id
    container: String,
    /// As after `docker run -p`
    #[arg(value_name = "[[IP:]HOST_PORT:]PORT[/PROTOCOL]")]
    spec: String,
}

#[derive(Debug, Args)]
pub(super) struct UnpublishArgs {
    /// The container's name or id
    container: String,
    /// As after `docker run -p`; a container port alone stands for wherever it is published
    #[arg(value_name = "[[IP:]HOST_PORT:]PORT[/PROTOCOL]")]
    spec: String,
}

pub(super) async fn publish(args: PublishArgs, globals: &Globals) -> Result<(), Failure> {
    let requests = parse_publish(&args.spec).map_err(|e| Failure::Usage(e.to_string()))?;
    let answer = change("publish", &args.container, &args.spec, globals).await?;
    // Where the port was chosen, it is told.
    if requests.iter().any(|r| r.fixed_host_port().is_none()) {
        let made: Vec<Publication> =
            serde_json::from_value(answer["publications"].clone()).map_err(anyhow::Error::from)?;
        let line = |p: &Publication| format!("{} -> {}\n", p.container_port, SocketAddr::new(p.host_addr, p.host_port));
        return output::print(&made.iter().map(line).collect::<String>());
    }
    Ok(())
}

pub(super) async fn unpublish(args: UnpublishArgs, globals: &Globals) -> Result<(), Failure> {
    parse_publish(&args.spec).map_err(|e| Failure::Usage(e.to_string()))?;
    change("unpublish", &args.container, &args.spec, globals).await?;
    Ok(())
}

async fn change(command: &str, container: &str, spec: &str, globals: &Globals) -> Result<serde_json::Value, Failure> {
    let request = json!({"command": command, "container": container, "spec": spec});
    Ok(globals.datapath().request(&request).await?)
}
