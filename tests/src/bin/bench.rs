//! Measures published ports against Docker's iptables, a direct route and a process on the host, from an external client:
//! `bench [--quick] [--out DIR]`. Two labs stand side by side, one with `runtime up`, one without; each round measures every
//! variant once, the order turning, so that what slows the machine slows all.

#[path = "../bench/load.rs"]
mod load;
#[path = "../bench/report.rs"]
mod report;
#[path = "../bench/stats.rs"]
mod stats;

use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use load::{ACCEPT, ECHO, SINK, SOURCE, measure};
use tests::{HOST, Image, Lab, Netns, wait_until};

const CLIENT_CORE: usize = 0;
const SERVER_CORE: &str = "1";

fn main() -> Result<()> {
    let (mut quick, mut out) = (false, PathBuf::from("target/bench"));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--out" => out = words.next().context("--out: expected a folder after it")?.into(),
            _ => bail!("{word:?}: expected --quick or --out DIR"),
        }
    }
    let (rounds, time) = if quick { (5, Duration::from_millis(250)) } else { (21, Duration::from_millis(500)) };
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("this machine has one core: client and server need one each");
    }

    let docker = Lab::builder("Docker's iptables").images(&[Image::Echo]).build();
    let ours = Lab::builder("the datapath").images(&[Image::Echo]).build();
    let up = ours.up(&[]);
    let container = start(&docker);
    start(&ours);
    // The direct route: appended, so that the packets of published ports are accepted by Docker's own rules before it.
    let direct = container.ip();
    docker.host().run(["iptables", "-A", "FORWARD", "-d", &direct.to_string(), "-j", "ACCEPT"]).ok();
    let process = Netns::at(docker.host().path());
    let peer = std::env::current_exe()?.with_file_name("peer");
    let shifted = words_for(100);
    let serve = ["taskset", "-c", SERVER_CORE, peer.to_str().context("the program's path is not UTF-8")?];
    let _server =
        process.spawn(&docker.dir().join("peer.log"), serve.into_iter().chain(shifted.iter().map(String::as_str)));

    let host = IpAddr::from(HOST);
    let variants: [(&'static str, &Lab, IpAddr, u16); 5] = [
        ("Docker's iptables", &docker, host, 0),
        ("Docker's iptables again", &docker, host, 0),
        ("this datapath", &ours, host, 0),
        ("direct route, no NAT", &docker, direct.into(), 0),
        ("process on the host", &docker, host, 100),
    ];
    for (name, lab, server, shift) in variants {
        let opens = |port: u16| lab.client().tcp((server, port + shift)).is_ok();
        wait_until(name, Duration::from_secs(10), || [ECHO, SINK, SOURCE, ACCEPT].into_iter().all(opens));
    }
    // Docker's rules are in the other lab too: figures count only where the datapath carries the packets.
    ours.assert_carried(|| ours.client().tcp((host, ECHO)).map(|s: TcpStream| drop(s)))?;

    let mut run = report::Run { variants: variants.map(|v| (v.0, Vec::new())).into(), about: about(rounds, time)? };
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for turn in 0..variants.len() {
            let i = (turn + round) % variants.len();
            let (_, lab, server, shift) = variants[i];
            let figures = lab.client().within(|| measure(server, shift, CLIENT_CORE, time));
            run.variants[i].1.push(figures.map_err(|e| e.to_string()));
        }
    }
    write(&out, &run)?;
    print!("{}", run.text());
    up.stop();
    ours.down();
    Ok(())
}

fn words_for(shift: u16) -> Vec<String> {
    let servers = [("tcp", ECHO), ("udp", ECHO), ("sink", SINK), ("source", SOURCE), ("accept", ACCEPT)];
    servers.map(|(what, port)| format!("{what}:0.0.0.0:{}", port + shift)).into()
}

fn start(lab: &Lab) -> tests::Container {
    let ports = format!("{ECHO}-{ACCEPT}:{ECHO}-{ACCEPT}");
    let udp = format!("{ECHO}:{ECHO}/udp");
    let servers = words_for(0);
    let mut words = vec!["--cpuset-cpus", SERVER_CORE, "-p", &ports, "-p", &udp, "echo", "peer"];
    words.extend(servers.iter().map(String::as_str));
    lab.start("server", &words)
}

fn about(rounds: usize, time: Duration) -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    Ok(format!(
        "Kernel {}, load before the start {}; {rounds} rounds, {} ms a load, client on core {CLIENT_CORE}, server on core \
         {SERVER_CORE}, IPv4, over veth pairs and a bridge. Connection tracking stays on for the direct route.",
        read("/proc/sys/kernel/osrelease")?.trim(),
        read("/proc/loadavg")?.split(' ').next().unwrap_or_default(),
        time.as_millis()
    ))
}

fn write(out: &Path, run: &report::Run) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (name, text) in [("results.json", serde_json::to_string_pretty(&run.json())?), ("index.html", run.html())] {
        let file = out.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}
