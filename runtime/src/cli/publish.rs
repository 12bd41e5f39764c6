//! `runtime publish` and `runtime unpublish`: published ports of running containers.

use std::net::SocketAddr;

use clap::Args;
use runtime_api::{Publish, Unpublish};

use super::{Failure, Globals, output};
use crate::model::Publication;
use crate::model::filter::Filter;
use crate::model::publish::parse_publish;
use crate::model::range::PublicationRange;

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The container's name or id
    container: String,
    /// As after `docker run -p`
    #[arg(value_name = "[[IP:]HOST_PORT:]PORT[/PROTOCOL]")]
    spec: String,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Who may use a published port: the same for `publish` and `run`.
#[derive(Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Sources that may use the published ports; no others may
    #[arg(long, value_name = "CIDR[,CIDR...]")]
    allow_from: Vec<String>,
    /// Sources that may not use the published ports
    #[arg(long, value_name = "CIDR[,CIDR...]")]
    deny_from: Vec<String>,
    /// New conversations in a second that each published port takes
    #[arg(long, value_name = "NUMBER")]
    max_rate: Option<String>,
}

impl FilterArgs {
    /// Reads them.
    ///
    /// # Errors
    /// Bad input, quoted.
    pub(super) fn read(&self) -> Result<Filter, Failure> {
        Filter::new(&self.allow_from, &self.deny_from, self.max_rate.as_deref())
            .map_err(|e| Failure::Usage(e.to_string()))
    }
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
    let filter = args.filter.read()?;
    let request = Publish { container: args.container, spec: args.spec, filter };
    let made = globals.datapath().call(request).await?.publications;
    // Where the port was chosen, it is told.
    if requests.iter().any(|r| r.fixed_host_port().is_none()) {
        let line = |p: Publication| format!("{} -> {}\n", p.container_port, SocketAddr::new(p.host_addr, p.host_port));
        return output::print(&made.iter().flat_map(PublicationRange::iter).map(line).collect::<String>());
    }
    Ok(())
}

pub(super) async fn unpublish(args: UnpublishArgs, globals: &Globals) -> Result<(), Failure> {
    parse_publish(&args.spec).map_err(|e| Failure::Usage(e.to_string()))?;
    globals.datapath().call(Unpublish { container: args.container, spec: args.spec }).await?;
    Ok(())
}
