//! `runtime links`: who may reach whom.

use clap::Args;
use serde_json::json;

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
    let value = globals.datapath().request(&json!({"command": "links"})).await?;
    let rows: Vec<_> = serde_json::from_value(value).map_err(anyhow::Error::from)?;
    print_rows(&format, COLUMNS, &rows)
}
