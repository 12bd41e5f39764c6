//! `runtime link` and `runtime unlink`: links between running containers.

use clap::Args;
use runtime_api::{Link, Unlink};

use super::{Failure, Globals};
use crate::model::link::parse_link;

#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// The container that may open connections: its name or id
    recipient: String,
    /// The container that it may reach, and under which name
    #[arg(value_name = "SOURCE[:ALIAS]")]
    source: String,
    /// Open every port of the source, not only those that it exposes
    #[arg(long)]
    all_ports: bool,
}

#[derive(Debug, Args)]
pub(super) struct UnlinkArgs {
    /// The container that has the link: its name or id
    recipient: String,
    /// Which link: its alias, the source's name or id, or both
    #[arg(value_name = "ALIAS|SOURCE[:ALIAS]")]
    target: String,
}

pub(super) async fn link(args: LinkArgs, globals: &Globals) -> Result<(), Failure> {
    let link = parse_link(&args.source).map_err(|e| Failure::Usage(e.to_string()))?;
    let request = Link { recipient: args.recipient, source: link.source, alias: link.alias, all_ports: args.all_ports };
    globals.datapath().call(request).await?;
    Ok(())
}

pub(super) async fn unlink(args: UnlinkArgs, globals: &Globals) -> Result<(), Failure> {
    globals.datapath().call(Unlink { recipient: args.recipient, target: args.target }).await?;
    Ok(())
}
