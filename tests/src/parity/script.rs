//! Setting up a group's lab, line by line.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::world::World;
use crate::process;
use crate::sockets::serve;
use crate::{Background, Lab, Netns, wait_for};

/// What `ECHO` stands for.
const ECHO: &[&str] = &["echo", "peer", "tcp:[::]:7", "udp:[::]:7"];
/// How long a server may take until it listens, and an address until it can be used.
const SOON: Duration = Duration::from_secs(5);

/// Does what the lines say, and waits until servers and addresses are ready. Servers that it starts live as long as `servers`.
pub(super) fn run(lab: &Lab, lines: &str, servers: &mut Vec<Background>) -> Result<()> {
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let world = World::look(lab)?;
        let filled = world.fill(line).with_context(|| line.to_owned())?;
        let words = filled.split_whitespace().flat_map(|w| if w == "ECHO" { ECHO.to_vec() } else { vec![w] });
        let words: Vec<&str> = words.collect();
        let done = match words[..] {
            ["docker", ref words @ ..] => lab.docker(words),
            ["run", name, ref words @ ..] => {
                lab.start(name, words);
                continue;
            }
            ["engine", program, ref words @ ..] => process::run(lab.engine_command(program).args(words))?,
            ["in", name, ref words @ ..] => world.ns(name)?.run(words),
            ["serve", who, ref addresses @ ..] => {
                let log = lab.dir().join(format!("server-{}.log", servers.len()));
                let server = serve(&world.ns(who)?, &log, addresses);
                wait_for(SOON, || server.output().contains("ready").then_some(())).context("the server's start")?;
                servers.push(server);
                continue;
            }
            [who @ ("host" | "client" | "client2"), ref words @ ..] => world.ns(who)?.run(words),
            _ => bail!("{line:?}: a line begins with docker, run, engine, in, serve, host, client or client2"),
        };
        if !done.success() {
            bail!("{done}");
        }
    }
    settle(lab)
}

/// Waits until every echo server of a container listens and no address is tentative.
fn settle(lab: &Lab) -> Result<()> {
    let world = World::look(lab)?;
    for name in world.names() {
        let container = lab.container(name);
        if container.inspect("{{.Path}}") == "peer" {
            let ready = wait_for(SOON, || container.logs().contains("ready").then_some(()));
            ready.with_context(|| format!("the server of {name} is not ready: {}", container.logs()))?;
        }
    }
    let spaces: Vec<Netns> =
        ["host", "client"].into_iter().chain(world.names()).map(|n| world.ns(n)).collect::<Result<_>>()?;
    // What stays tentative is to be seen in the outcomes.
    let _ = wait_for(SOON, || spaces.iter().all(|ns| !is_tentative(ns)).then_some(()));
    Ok(())
}

/// Whether some address of an interface that has a carrier cannot be used yet.
fn is_tentative(ns: &Netns) -> bool {
    let text = ns.must(["ip", "-j", "-6", "address", "show", "tentative"]).unwrap_or_default();
    let links: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let waits = |link: &Value| {
        let addresses = link["addr_info"].as_array().is_some_and(|a| a.iter().any(|a| a["local"].is_string()));
        link["operstate"] == "UP" && addresses
    };
    links.iter().any(waits)
}
