//! A daemon that is killed between any two of its effects, and the next one that makes good what was half done.
//!
//! Each change is made again and again, and the daemon killed one effect later each time, until a change comes to its end;
//! then from the first one on. Connections that are held meanwhile must not notice anything.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sockets::Talk;
use crate::traces::{files, objects};
use crate::{Background, Container, HOST, Image, Lab, wait_for};

const SOON: Duration = Duration::from_secs(20);
/// Published by a change.
const PORT: u16 = 8100;
/// After how many kills the kernel's objects are written down: at the end none of them may be left.
const LOOK: usize = 25;

/// What is done while the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Publish,
    Link,
    Unlink,
    Unpublish,
    /// The daemon's own start, which adopts what is there.
    Start,
}

const CHANGES: [Change; 5] = [Change::Publish, Change::Link, Change::Unlink, Change::Unpublish, Change::Start];

impl Change {
    fn request(self) -> &'static str {
        match self {
            Change::Publish => r#"{"command":"publish","container":"source","spec":"8100:7"}"#,
            Change::Unpublish => r#"{"command":"unpublish","container":"source","spec":"8100:7"}"#,
            Change::Link => {
                r#"{"command":"link","recipient":"recipient","source":"source","alias":"alias","all_ports":false}"#
            }
            Change::Unlink => r#"{"command":"unlink","recipient":"recipient","target":"alias"}"#,
            Change::Start => r#"{"command":"ping"}"#,
        }
    }
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often the daemon was killed.
    pub kills: usize,
    /// How many effects each change had, when it came to its end.
    pub effects: Vec<(String, u64)>,
}

struct Soak {
    lab: Lab,
    file: PathBuf,
    daemon: Background,
    held: Vec<Talk>,
    source: Container,
    recipient: Container,
    /// Names of pins while all is as it should be.
    pins: BTreeSet<PathBuf>,
    descriptors: usize,
    seen: BTreeSet<(String, String)>,
}

/// Kills a daemon so many times.
///
/// # Errors
/// At the first thing that is not as it should be.
pub fn run(kills: usize, mut progress: impl FnMut(usize)) -> Result<Report> {
    let mut soak = Soak::begin()?;
    let mut report = Report::default();
    let mut at = [0u64; CHANGES.len()];
    while report.kills < kills {
        for (change, at) in CHANGES.into_iter().zip(&mut at) {
            let context = || format!("{change:?}, killed before effect {at} of it, kill {}", report.kills);
            let killed = soak.make(change, *at).with_context(context)?;
            if !killed {
                let name = format!("{change:?}").to_lowercase();
                report.effects.retain(|(n, _)| *n != name);
                report.effects.push((name, *at));
                *at = 0;
                continue;
            }
            soak.check(change).with_context(context)?;
            *at += 1;
            report.kills += 1;
            progress(report.kills);
            if report.kills.is_multiple_of(LOOK) {
                soak.seen.extend(objects(&soak.lab));
            }
        }
    }
    soak.end()?;
    Ok(report)
}

impl Soak {
    fn begin() -> Result<Soak> {
        let lab = Lab::builder("killed at every step").images(&[Image::Echo]).build();
        let file = lab.dir().join("kill-at");
        let mut daemon = spawn(&lab, &file);
        wait(&lab, &mut daemon)?;
        let source = lab.run("source", &["-p", "8000:7", "echo"]);
        let recipient = lab.run("recipient", &["busybox", "sleep", "1000000"]);
        let held = vec![Talk::when_up(lab.client(), (HOST, 8000)), Talk::when_up(lab.host(), (HOST, 8000))];
        let mut soak = Soak {
            file,
            daemon,
            held,
            source,
            recipient,
            pins: BTreeSet::new(),
            descriptors: 0,
            seen: BTreeSet::new(),
            lab,
        };
        // Relaying begins some moments after the first container.
        std::thread::sleep(Duration::from_secs(3));
        soak.pins = files(soak.lab.pins()).into_iter().collect();
        soak.descriptors = soak.open_files();
        soak.seen = objects(&soak.lab);
        Ok(soak)
    }

    /// Makes a change of which the daemon is killed before effect `at`, and starts the next daemon. False where it came to
    /// its end before.
    fn make(&mut self, change: Change, at: u64) -> Result<bool> {
        fs::write(&self.file, at.to_string())?;
        if change == Change::Start {
            self.daemon.kill();
            self.daemon = spawn(&self.lab, &self.file);
            let ended = wait_for(SOON, || {
                (self.daemon.ended().is_some() || ask(&self.lab, change.request()).is_some()).then_some(())
            });
            ended.context("the daemon neither starts nor is killed")?;
        } else {
            let answer = ask(&self.lab, change.request());
            ensure!(answer.as_ref().is_none_or(|a| a.starts_with("{\"ok\"")), "{answer:?}");
        }
        let killed = !self.file.exists();
        let _ = fs::remove_file(&self.file);
        if killed {
            wait_for(SOON, || self.daemon.ended()).context("the daemon does not end")?;
            self.daemon = spawn(&self.lab, &self.file);
            wait(&self.lab, &mut self.daemon)?;
        }
        Ok(killed)
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).map_or(0, Iterator::count)
    }

    /// Looks whether a change was made or not, and nothing between; then makes it.
    fn check(&mut self, change: Change) -> Result<()> {
        for talk in &mut self.held {
            talk.say(b"held").context("a connection that was held")?;
        }
        self.agrees()?;
        // Where it was made already, it is refused or the same again.
        ask(&self.lab, change.request()).context("the daemon is gone")?;
        let (published, linked) = self.agrees()?;
        match change {
            Change::Publish | Change::Unpublish => ensure!(published == (change == Change::Publish), "{change:?}"),
            Change::Link | Change::Unlink => ensure!(linked == (change == Change::Link), "{change:?}"),
            Change::Start => {}
        }
        let pins: BTreeSet<PathBuf> = files(self.lab.pins()).into_iter().collect();
        ensure!(pins == self.pins, "other pins: {:?}", pins.symmetric_difference(&self.pins).collect::<Vec<_>>());
        let open = self.open_files();
        ensure!(open <= self.descriptors + 12, "{open} descriptors, {} at the beginning", self.descriptors);
        Ok(())
    }

    /// Whether the port is published and the link made: by `status`, by packets, and by the recipient's file.
    fn agrees(&self) -> Result<(bool, bool)> {
        let status: Value = serde_json::from_str(&self.lab.runtime(["status", "--format", "json"]).stdout)?;
        let rows = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let published = rows("publications").iter().any(|p| p["host_port"] == PORT && p["state"] == "served");
        let linked = rows("links").iter().any(|l| l["alias"] == "alias" && l["active"] == true);
        let reached = Talk::open(self.lab.client(), (HOST, PORT)).is_ok();
        ensure!(reached == published, "published by status: {published}, reached: {reached}");
        let reached = Talk::open(&self.recipient.ns(), self.source.at(7)).is_ok();
        ensure!(reached == linked, "linked by status: {linked}, reached: {reached}");
        let hosts = self.lab.docker(["exec", "recipient", "busybox", "cat", "/etc/hosts"]).ok();
        ensure!(hosts.contains("\talias ") == linked, "linked by status: {linked}, and in /etc/hosts: {hosts}");
        Ok((published, linked))
    }

    fn end(mut self) -> Result<()> {
        self.seen.extend(objects(&self.lab));
        for talk in &mut self.held {
            talk.transfer(1_000_000, |_| ()).context("a transfer at the end")?;
        }
        self.lab.down();
        ensure!(files(self.lab.pins()).is_empty(), "pins are left");
        let left = || {
            let shown =
                |(kind, id): &&(String, String)| self.lab.host().run(["bpftool", kind, "show", "id", id]).success();
            self.seen.iter().filter(shown).count()
        };
        if wait_for(SOON, || (left() == 0).then_some(())).is_none() {
            bail!("{} programs, maps or links are left in the kernel", left());
        }
        Ok(())
    }
}

fn spawn(lab: &Lab, file: &std::path::Path) -> Background {
    let command = lab.runtime_command(["up"]);
    let mut words = vec!["env".into(), format!("RUNTIME_KILL_AT={}", file.display()).into()];
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(ToOwned::to_owned));
    lab.host().spawn(&lab.dir().join("runtime.log"), words)
}

fn wait(lab: &Lab, daemon: &mut Background) -> Result<()> {
    let up = wait_for(SOON, || (daemon.ended().is_some() || ask(lab, Change::Start.request()).is_some()).then_some(()));
    match (up, daemon.ended()) {
        (Some(()), None) => Ok(()),
        (_, ended) => bail!("the next daemon does not come up ({ended:?}): {}", daemon.output()),
    }
}

/// The daemon's answer; none where it is gone, or goes.
fn ask(lab: &Lab, request: &str) -> Option<String> {
    let mut stream = UnixStream::connect(lab.dir().join("run/runtime.sock")).ok()?;
    stream.write_all(format!("{request}\n").as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    (!line.is_empty()).then_some(line)
}
