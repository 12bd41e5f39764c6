//! `runtime status`: what is attached, served and refused.

use std::fmt::Write;
use std::net::SocketAddr;

use clap::Args;
use runtime_api::{Netfilter, Status, StatusReport};

use super::{Failure, Globals, output};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) async fn run(args: StatusArgs, globals: &Globals) -> Result<(), Failure> {
    let format = output::Format::parse(args.format.as_deref())?;
    let status = globals.datapath().call(Status).await?;
    let value = || serde_json::to_value(&status).map_err(anyhow::Error::from);
    match format {
        output::Format::Json => output::print_json(&value()?),
        output::Format::Template(t) | output::Format::TemplateTable(t) => {
            output::print(&format!("{}\n", output::render(&t, &value()?)?))
        }
        output::Format::Table => output::print(&describe(&status)),
    }
}

fn describe(s: &StatusReport) -> String {
    let mut text = String::new();
    let away = if s.engine_connected { "" } else { " (away: its last known state is served)" };
    // Writing to a string does not fail.
    let _ = writeln!(text, "runtime {} (process {}), kernel {}, {}", s.version, s.pid, s.kernel, s.attachment);
    let firewall = match s.netfilter {
        Netfilter::Bypass => "passed by",
        Netfilter::Honor => "honoured",
    };
    let _ = writeln!(text, "engine {}{away}; isolation: {}; host's firewall: {firewall}", s.engine, s.isolate);
    let _ = writeln!(text, "{} answered flows, {} pending", s.flows.answered, s.flows.pending);
    for problem in &s.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    let hooks = s.hooks.iter().map(|h| vec![h.interface.clone(), h.hook.clone(), h.kind.clone()]);
    section(&mut text, &["INTERFACE", "PROGRAM", "ATTACHED"], hooks);
    let endpoints = s.endpoints.iter().map(|e| {
        let isolated = if e.isolated { "isolated" } else { "open" };
        vec![e.container.clone(), e.network.clone(), isolated.to_owned(), e.interface.clone(), e.addresses.join(", ")]
    });
    section(&mut text, &["CONTAINER", "NETWORK", "ISOLATION", "INTERFACE", "ADDRESSES"], endpoints);
    let publications = s.publications.iter().map(|p| {
        let host = SocketAddr::new(p.publication.host_addr, p.publication.host_port);
        let port = p.publication.container_port.to_string();
        vec![host.to_string(), p.container.clone(), port, p.origin.clone(), p.state.clone(), p.filter.clone()]
    });
    section(&mut text, &["PUBLISHED", "CONTAINER", "PORT", "ORIGIN", "STATE", "FILTER"], publications);
    let links = s.links.iter().map(|l| {
        let state = if l.active { "active" } else { "inactive" };
        vec![
            l.recipient.clone(),
            l.source.clone(),
            l.alias.clone(),
            l.ports.join(", "),
            l.origin.clone(),
            state.to_owned(),
        ]
    });
    section(&mut text, &["RECIPIENT", "SOURCE", "ALIAS", "PORTS", "ORIGIN", "STATE"], links);
    let masquerade = s.masquerade.iter().map(|(network, by)| vec![network.clone(), by.to_string()]);
    section(&mut text, &["NETWORK", "MASQUERADED BY"], masquerade);
    let counters = s
        .counters
        .iter()
        .filter(|c| c.packets > 0)
        .map(|c| vec![c.verdict.clone(), c.kind.clone(), c.packets.to_string(), c.text.clone()]);
    section(&mut text, &["VERDICT", "KIND", "PACKETS", "MEANING"], counters);
    let drops = s.drops.iter().rev().take(10).map(|d| {
        let end = |a, p| SocketAddr::new(a, p).to_string();
        vec![d.verdict.clone(), d.protocol.clone(), end(d.src, d.sport), end(d.dst, d.dport)]
    });
    section(&mut text, &["LAST DROPS", "PROTOCOL", "FROM", "TO"], drops);
    text
}

fn section(text: &mut String, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut lines = vec![headings.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    if lines.len() > 1 {
        text.push('\n');
        text.push_str(&output::table(&lines));
    }
}
