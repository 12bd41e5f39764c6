//! How long changes take. Measured, not asserted: `cargo test --release -p tests --test control -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use runtime_api::{Call, Filter, Link, Publish, Status, Unlink, Unpublish};
use tests::{Image, Lab};

/// Asks the daemon without a process of its own; how long the answer takes.
fn ask<C: Call>(lab: &Lab, call: C) -> Duration {
    let began = Instant::now();
    lab.daemon().call(call).expect("an answer");
    began.elapsed()
}

fn publish(lab: &Lab, container: &str, spec: &str) -> Duration {
    let (container, spec) = (container.to_owned(), spec.to_owned());
    ask(lab, Publish { container, spec, filter: Filter::default() })
}

fn unpublish(lab: &Lab, container: &str, spec: &str) -> Duration {
    ask(lab, Unpublish { container: container.to_owned(), spec: spec.to_owned() })
}

fn print(what: &str, mut all: Vec<Duration>) {
    all.sort();
    let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}

fn rounds(lab: &Lab, pid: u32, what: &str) {
    const ROUNDS: u16 = 200;
    let before = on_cpu(pid);
    let (mut made, mut gone) = (Vec::new(), Vec::new());
    for i in 0..ROUNDS {
        let spec = format!("{}:7", 8100 + i);
        made.push(publish(lab, "other", &spec));
        gone.push(unpublish(lab, "other", &spec));
    }
    println!("{what}: on a processor for each: {:?}", (on_cpu(pid) - before) / u32::from(2 * ROUNDS));
    print(&format!("{what}: publish"), made);
    print(&format!("{what}: unpublish"), gone);
    let (mut made, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (recipient, alias) = ("other".to_owned(), "alias".to_owned());
        let link =
            Link { recipient: recipient.clone(), source: "source".to_owned(), alias: alias.clone(), all_ports: false };
        made.push(ask(lab, link));
        gone.push(ask(lab, Unlink { recipient, target: alias }));
    }
    print(&format!("{what}: link"), made);
    print(&format!("{what}: unlink"), gone);
}

/// How long the daemon has had a processor so far: where a machine is busy, that tells more than a clock.
fn on_cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    let of = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.filter_map(|t| of(t.path())).sum())
}

fn memory(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "measures"]
fn how_long_changes_take() {
    let lab = Lab::builder("measuring").without_iptables().images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    for name in ["other", "source", "web"] {
        lab.run(name, &["echo"]);
    }
    rounds(&lab, up.pid(), "nothing in place");
    println!("memory: {}", memory(up.pid()));
    for _ in 0..3 {
        let before = on_cpu(up.pid());
        let time = publish(&lab, "web", "20000-29999:20000-29999");
        println!("publish of 10,000 ports: {time:?}, of which on a processor {:?}", on_cpu(up.pid()) - before);
        let before = on_cpu(up.pid());
        let time = unpublish(&lab, "web", "20000-29999:20000-29999");
        println!("unpublish of 10,000 ports: {time:?}, of which on a processor {:?}", on_cpu(up.pid()) - before);
    }
    let began = Instant::now();
    lab.runtime(["publish", "web", "20000-29999:20000-29999"]).ok();
    println!("publish of 10,000 ports by the command: {:?}", began.elapsed());
    println!("status: {:?}", ask(&lab, Status));
    println!("memory: {}", memory(up.pid()));
    let file = std::fs::metadata(lab.dir().join("state/live.json")).map(|m| m.len());
    println!("live.json: {file:?}");
    rounds(&lab, up.pid(), "10,000 live ports in place");
    unpublish(&lab, "web", "20000-29999:20000-29999");
    let began = Instant::now();
    lab.run("many", &["-p", "40000-49999:40000-49999", "echo"]);
    println!("runtime run with 10,000 ports: {:?}", began.elapsed());
    rounds(&lab, up.pid(), "10,000 engine ports in place");
    println!("memory: {}", memory(up.pid()));
    let began = Instant::now();
    up.kill();
    let up = lab.up(&[]);
    println!("restart: {:?}", began.elapsed());
    drop(up);
}
