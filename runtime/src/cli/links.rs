//! `runtime links`: who may reach whom.

use clap::Args;
use runtime_api::Links;

use super::output::{Column, Format, print_rows};
use super::{Failure, Globals};

#[derive(Debug, Args)]
pub(super) struct LinksArgs {
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column { field: "recipient", heading: "RECIPIENT" },
    Column { field: "source", heading: "SOURCE" },
    Column { field: "alias", heading: "ALIAS" },
    Column { field: "address", heading: "ADDRESS" },
    Column { field: "ports", heading: "PORTS" },
    Column { field: "origin", heading: "ORIGIN" },
];

pub(super) async fn run(args: LinksArgs, globals: &Globals) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let rows = globals.datapath().call(Links).await?;
    let rows = serde_json::to_value(rows).and_then(serde_json::from_value::<Vec<_>>).map_err(anyhow::Error::from)?;
    print_rows(&format, COLUMNS, &rows)
}
