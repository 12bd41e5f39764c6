//! nginx behind a published port and PostgreSQL behind a link, asked by wrk and pgbench.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ::tests::sockets::http_get;
use ::tests::{Background, Builder, Container, HOST, Image, Lab, Netns, Up, wait_until};
use anyhow::{Context, Result};

use crate::load::{CLIENT_CORE, SERVER_CORE};
use crate::progress;
use crate::suite::{Figures, Measure, Suite};
use crate::traffic::{netavark, ruled, unruled};

/// nginx on the host: published, and as a process of the host itself.
const PUBLISHED: u16 = 8080;
const PROCESS: u16 = 8180;
const SOON: Duration = Duration::from_secs(30);
const SECONDS: &str = "1";

const WRK: &[Measure] = &[
    Measure::more("requests, connections kept", "/s"),
    Measure::less("latency p50, connections kept", "s"),
    Measure::less("latency p99, connections kept", "s"),
    Measure::more("requests, a connection each", "/s"),
];

const PGBENCH: &[Measure] = &[Measure::more("transactions", "/s"), Measure::less("mean latency", "s")];

struct Labs {
    docker: Host,
    /// Docker's own links, with containers kept apart otherwise.
    links: Host,
    nft: Host,
    bare: Host,
    ours: Host,
    _process: Background,
    up: Up,
}

/// A lab with nginx, PostgreSQL, and a container that is linked to the latter.
struct Host {
    lab: Lab,
    web: Container,
    db: Ipv4Addr,
    recipient: Netns,
}

/// Both suites, measured `rounds` times.
pub fn measure_all(rounds: usize) -> Result<Vec<Suite>> {
    progress("applications: starting nginx and PostgreSQL");
    let labs = Labs::make()?;
    labs.check()?;
    let (mut wrk, sites) = sites(&labs);
    let (mut pgbench, databases) = databases(&labs);
    for round in 0..rounds {
        progress(&format!("applications: round {} of {rounds}", round + 1));
        wrk.round(&[Keep::Connection, Keep::Nothing], |i, keep| ask_nginx(sites[i].0, sites[i].1, keep));
        pgbench.round(&[()], |i, ()| ask_postgres(databases[i]));
    }
    labs.up.stop();
    labs.ours.lab.down();
    Ok(vec![wrk, pgbench])
}

fn sites(labs: &Labs) -> (Suite, Vec<(&Netns, SocketAddr)>) {
    let host = SocketAddr::from((HOST, PUBLISHED));
    let list: Vec<(&'static str, &Lab, SocketAddr)> = vec![
        ("Docker's iptables", &labs.docker.lab, host),
        ("Docker's iptables again", &labs.docker.lab, host),
        ("this datapath", &labs.ours.lab, host),
        ("this datapath again", &labs.ours.lab, host),
        ("nftables map (netavark)", &labs.nft.lab, host),
        ("direct route, no rules", &labs.bare.lab, labs.bare.web.at(80)),
        ("process on the host", &labs.bare.lab, (HOST, PROCESS).into()),
    ];
    let suite = Suite::new("wrk, external client, to nginx", WRK, list.iter().map(|s| s.0).collect());
    (suite, list.into_iter().map(|(_, lab, to)| (lab.client(), to)).collect())
}

fn databases(labs: &Labs) -> (Suite, Vec<&Host>) {
    let list = vec![
        ("Docker's bridge, not isolated", &labs.docker),
        ("Docker's bridge again", &labs.docker),
        ("this datapath, link", &labs.ours),
        ("this datapath, link again", &labs.ours),
        ("Docker's link, --icc=false", &labs.links),
    ];
    let suite = Suite::new("pgbench, sibling, to PostgreSQL", PGBENCH, list.iter().map(|s| s.0).collect());
    (suite, list.into_iter().map(|(_, host)| host).collect())
}

impl Labs {
    fn make() -> Result<Labs> {
        let ours = Host::make(ruled("nginx and PostgreSQL, this datapath"))?;
        let up = ours.lab.up(&[]);
        let docker = Host::make(ruled("nginx and PostgreSQL, Docker"))?;
        let links = Host::make(ruled("nginx and PostgreSQL, Docker's links").without_icc())?;
        let nft = Host::make(unruled("nginx, nftables"))?;
        let bare = Host::make(unruled("nginx, no rules"))?;
        netavark(&nft.lab, &nft.web, &[(PUBLISHED, 80)])?;
        let dir = bare.lab.dir();
        fs::create_dir_all(dir.join("www"))?;
        fs::write(dir.join("www/index.html"), "nginx")?;
        let config = dir.join("process.conf");
        let pid = dir.join("nginx.pid").display().to_string();
        fs::write(&config, nginx(PROCESS, &dir.join("www").display().to_string(), &pid))?;
        let config = config.display().to_string();
        let words = ["taskset", "-c", SERVER_CORE, "nginx", "-c", &config, "-g", "daemon off;"];
        let process = bare.lab.host().spawn(&dir.join("nginx.log"), words);
        Ok(Labs { docker, links, nft, bare, ours, _process: process, up })
    }

    /// Waits until everything answers; the datapath must carry what is asked over it.
    fn check(&self) -> Result<()> {
        for (ns, to) in sites(self).1 {
            wait_until(&format!("nginx answers at {to}"), SOON, || http_get(ns, to).is_ok());
        }
        for host in [&self.docker, &self.links, &self.ours] {
            let ready = || pgbench(host, &["-i", "-s", "1", "-q"]).is_ok();
            wait_until("PostgreSQL takes the tables", SOON, ready);
        }
        let lab = &self.ours.lab;
        lab.assert_carried(|| http_get(lab.client(), (HOST, PUBLISHED)).map(drop))?;
        lab.assert_carried(|| pgbench(&self.ours, &["-n", "-S", "-t", "1"]).map(drop)).map_err(anyhow::Error::msg)
    }
}

impl Host {
    fn make(builder: Builder) -> Result<Host> {
        let lab = builder.images(&[Image::Nginx, Image::Postgres]).build();
        let config = lab.dir().join("nginx.conf");
        fs::write(&config, nginx(80, "/www", "/run/nginx.pid")).context("nginx's configuration")?;
        let (volume, ports) = (format!("{}:/etc/nginx.conf", config.display()), format!("{PUBLISHED}:80"));
        let web = lab.start("web", &["--cpuset-cpus", SERVER_CORE, "-v", &volume, "-p", &ports, "nginx"]);
        let db = lab.start("db", &["--cpuset-cpus", SERVER_CORE, "postgres"]).ip();
        let recipient = lab.start("recipient", &["--link", "db:pg", "busybox", "sleep", "1000000"]).ns();
        Ok(Host { lab, web, db, recipient })
    }
}

/// One worker, which keeps no log: writing it would be measured too.
fn nginx(port: u16, root: &str, pid: &str) -> String {
    format!(
        "user root;\nworker_processes 1;\npid {pid};\nerror_log stderr;\nevents {{}}\n\
         http {{ access_log off; keepalive_requests 1000000; server {{ listen {port}; root {root}; }} }}\n"
    )
}

/// What wrk keeps from one request to the next.
#[derive(Clone, Copy)]
enum Keep {
    Connection,
    Nothing,
}

fn ask_nginx(ns: &Netns, to: SocketAddr, keep: Keep) -> Figures {
    let core = CLIENT_CORE.to_string();
    let url = format!("http://{to}/");
    let mut words = vec!["taskset", "-c", &core, "wrk", "-t1", "-c16", "-d", SECONDS, "--latency", &url];
    if let Keep::Nothing = keep {
        words.extend(["-H", "Connection: close"]);
    }
    let done = ns.run(&words);
    if !done.success() {
        return Err(done.to_string());
    }
    let figures = parse_wrk(&done.stdout).ok_or_else(|| format!("wrk writes something else: {}", done.stdout))?;
    Ok(match keep {
        Keep::Connection => figures.into(),
        Keep::Nothing => figures[..1].into(),
    })
}

/// Requests a second, p50 and p99.
fn parse_wrk(text: &str) -> Option<[f64; 3]> {
    let after = |name: &str| text.lines().find_map(|l| l.trim().strip_prefix(name))?.split_whitespace().next();
    // A server that refuses is quick.
    if text.contains("Non-2xx") {
        return None;
    }
    Some([after("Requests/sec:")?.parse().ok()?, parse_time(after("50%")?)?, parse_time(after("99%")?)?])
}

/// `123.45us`, `1.20ms`, `2.00s`.
fn parse_time(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

fn pgbench(host: &Host, more: &[&str]) -> Result<String, String> {
    let (core, db) = (CLIENT_CORE.to_string(), host.db.to_string());
    let words = ["taskset", "-c", &core, "pgbench", "-h", &db, "-U", "postgres"];
    let done = host.recipient.run(words.iter().chain(more).chain(&["postgres"]));
    if done.success() { Ok(done.stdout) } else { Err(done.to_string()) }
}

fn ask_postgres(host: &Host) -> Figures {
    // A connection for each transaction would measure how fast PostgreSQL forks.
    let text = pgbench(host, &["-n", "-S", "-c", "4", "-T", SECONDS])?;
    let (rate, latency) = parse_pgbench(&text).ok_or_else(|| format!("pgbench writes something else: {text}"))?;
    Ok(vec![rate, latency])
}

/// Transactions a second, and the mean latency.
fn parse_pgbench(text: &str) -> Option<(f64, f64)> {
    let after = |name: &str| -> Option<f64> {
        text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some((after("tps = ")?, after("latency average = ")? / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_and_pgbench_write_is_read() {
        let wrk = "  Latency Distribution\n     50%  123.00us\n     75%    1.00ms\n     99%    1.20ms\n  4567 requests in 1.00s\n\
                   Requests/sec:   4567.89\n";
        assert_eq!(parse_wrk(wrk), Some([4567.89, 123.0 * 1e-6, 1.2 * 1e-3]));
        assert_eq!(parse_wrk(&format!("{wrk}  Non-2xx or 3xx responses: 4567\n")), None);
        assert_eq!(parse_wrk("wrk: unable to connect"), None);
        let pgbench = "latency average = 0.500 ms\ninitial connection time = 9 ms\ntps = 8000.5 (without initial connection time)\n";
        assert_eq!(parse_pgbench(pgbench), Some((8000.5, 0.0005)));
        assert_eq!(parse_pgbench("pgbench: error"), None);
    }
}
