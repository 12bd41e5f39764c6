//! A daemon that is killed between any two of its effects, and the next one that makes good what was half done.
//!
//! Each change is made again and again, and the daemon killed one effect later each time, until a change comes to its end;
//! then from the first one on. The daemons that are to make it good are killed on their way as well, some times in a row.
//! Connections that are held meanwhile must not notice anything. Where two builds of the daemon are there, they take turns: each
//! start is an upgrade or a downgrade.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sockets::Talk;
use crate::traces::{files, objects, remaining};
use crate::{Background, HOST, Image, Lab, Netns, entries, wait_for};

const SOON: Duration = Duration::from_secs(20);
/// Published by a change, the first of a range.
const PORT: u16 = 8100;
/// After how many kills it is asked which of the kernel's objects are still there.
const LOOK: usize = 100;
/// How many daemons in a row are killed on their way to make a change good, at most.
const SUCCESSORS: usize = 2;

/// What is done while the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Publish,
    Link,
    Unlink,
    Unpublish,
}

const CHANGES: [Change; 4] = [Change::Publish, Change::Link, Change::Unlink, Change::Unpublish];

impl Change {
    fn request(self) -> &'static str {
        match self {
            // Several at once, as the kernel takes them, with sources and a rate that belong to them.
            Change::Publish => {
                r#"{"command":"publish","container":"source","spec":"8100-8109:7-16","filter":{"allow":["192.0.2.0/24"],"max_rate":100000}}"#
            }
            Change::Unpublish => r#"{"command":"unpublish","container":"source","spec":"8100-8109:7-16"}"#,
            Change::Link => {
                r#"{"command":"link","recipient":"recipient","source":"source","alias":"alias","all_ports":false}"#
            }
            Change::Unlink => r#"{"command":"unlink","recipient":"recipient","target":"alias"}"#,
        }
    }

    /// What is made of a world by it.
    fn after(self, before: World) -> World {
        match self {
            Change::Publish | Change::Unpublish => World { published: self == Change::Publish, ..before },
            Change::Link | Change::Unlink => World { linked: self == Change::Link, ..before },
        }
    }
}

const PING: &str = r#"{"command":"ping"}"#;

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    published: bool,
    linked: bool,
}

/// What the kernel, and the recipient's file, say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    kernel: BTreeSet<String>,
    hosts: String,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often the daemon was killed.
    pub kills: usize,
    /// How often what it left was looked at.
    pub checks: usize,
    /// How many effects each change had, and a start, when it came to its end.
    pub effects: BTreeMap<String, u64>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let effects: Vec<_> = self.effects.iter().map(|(change, n)| format!("{change} {n}")).collect();
        let Report { kills, checks, .. } = self;
        write!(f, "{kills} kills, looked at {checks} times, nothing lost; effects: {}", effects.join(", "))
    }
}

/// How it is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Enough after so many kills.
    pub kills: usize,
    /// Enough after so long.
    pub time: Duration,
    /// Another build of `runtime`, of the same layout of maps, that takes turns with the one that is here.
    pub other: Option<PathBuf>,
}

struct Soak {
    lab: Lab,
    file: PathBuf,
    daemon: Background,
    other: Option<PathBuf>,
    /// Whether the other build is next.
    turn: bool,
    held: Vec<Talk>,
    source: std::net::SocketAddr,
    recipient: Netns,
    hosts: PathBuf,
    /// As undisturbed changes left it.
    shown: BTreeMap<World, Shown>,
    now: World,
    /// Names of pins while all is as it should be.
    pins: BTreeSet<PathBuf>,
    descriptors: usize,
    seen: BTreeSet<(String, String)>,
    /// At which effect of its start each of the successors is to be killed next.
    starts: [u64; SUCCESSORS],
    report: Report,
}

/// Kills a daemon again and again.
///
/// # Errors
/// At the first thing that is not as it should be.
pub fn run(options: Options, mut progress: impl FnMut(&Report)) -> Result<Report> {
    let mut soak = Soak::begin(options.other)?;
    let began = Instant::now();
    let mut at = [0u64; CHANGES.len()];
    let mut looked = 0;
    while soak.report.kills < options.kills && began.elapsed() < options.time {
        for (change, at) in CHANGES.into_iter().zip(&mut at) {
            let (kills, starts) = (soak.report.kills, soak.starts);
            let killed = soak.cycle(change, *at);
            let killed = killed.with_context(|| {
                format!(
                    "{change:?}, killed before effect {at} of it, after {kills} kills, successors before {starts:?}"
                )
            })?;
            if killed {
                *at += 1;
            } else {
                soak.report.effects.insert(format!("{change:?}").to_lowercase(), *at);
                *at = 0;
            }
            progress(&soak.report);
        }
        if soak.report.kills - looked >= LOOK {
            looked = soak.report.kills;
            soak.nothing_leaks()?;
        }
    }
    soak.end()
}

impl Soak {
    fn begin(other: Option<PathBuf>) -> Result<Soak> {
        let lab = Lab::builder("killed at every step").images(&[Image::Echo]).build();
        let file = lab.dir().join("kill-at");
        let mut daemon = spawn(&lab, &file, None);
        wait(&lab, &mut daemon)?;
        let source = lab.run("source", &["-p", "8000:7", "echo"]);
        let recipient = lab.run("recipient", &["busybox", "sleep", "1000000"]);
        let held = vec![Talk::when_up(lab.client(), (HOST, 8000)), Talk::when_up(lab.host(), (HOST, 8000))];
        let mut soak = Soak {
            file,
            daemon,
            other,
            turn: true,
            held,
            source: source.at(7),
            hosts: format!("/proc/{}/root/etc/hosts", recipient.pid()).into(),
            recipient: recipient.ns(),
            shown: BTreeMap::new(),
            now: World::default(),
            pins: BTreeSet::new(),
            descriptors: 0,
            seen: BTreeSet::new(),
            starts: [0; SUCCESSORS],
            report: Report::default(),
            lab,
        };
        // Relaying begins some moments after the first container, and addresses are checked for as long.
        std::thread::sleep(Duration::from_secs(3));
        for _ in 0..2 {
            for change in CHANGES {
                soak.must(change)?;
                let shown = soak.show()?;
                let before = soak.shown.insert(soak.now, shown.clone());
                ensure!(before.is_none_or(|before| before == shown), "{change:?} makes something else the second time");
                soak.works().with_context(|| format!("{change:?}, undisturbed"))?;
            }
        }
        soak.pins = files(soak.lab.pins()).into_iter().collect();
        soak.descriptors = soak.open_files();
        soak.seen = objects(&soak.lab);
        Ok(soak)
    }

    /// Makes a change that must succeed.
    fn must(&mut self, change: Change) -> Result<()> {
        let answer = ask(&self.lab, change.request()).context("the daemon is gone")?;
        ensure!(answer.starts_with("{\"ok\""), "{change:?}: {answer}");
        self.now = change.after(self.now);
        Ok(())
    }

    fn show(&self) -> Result<Shown> {
        let hosts = fs::read_to_string(&self.hosts).with_context(|| format!("cannot read {}", self.hosts.display()))?;
        Ok(Shown { kernel: entries::state(self.lab.pins())?, hosts })
    }

    /// Makes a change of which the daemon is killed before effect `at`, has some successors killed as well, and looks at what
    /// the next one makes of it. False where the change came to its end before.
    fn cycle(&mut self, change: Change, at: u64) -> Result<bool> {
        let before = self.now;
        fs::write(&self.file, at.to_string())?;
        let answer = ask(&self.lab, change.request());
        ensure!(answer.as_ref().is_none_or(|a| a.starts_with("{\"ok\"")), "{answer:?}");
        let killed = !self.file.exists();
        let _ = fs::remove_file(&self.file);
        if !killed {
            self.now = change.after(before);
            self.stands(&[self.now])?;
            return Ok(false);
        }
        self.report.kills += 1;
        wait_for(SOON, || self.daemon.ended()).context("the daemon does not end")?;
        for successor in 0..SUCCESSORS {
            if !self.killed_at_start(successor)? {
                break;
            }
        }
        if self.daemon.ended().is_some() {
            self.start();
            wait(&self.lab, &mut self.daemon)?;
        }
        self.check(change, before)?;
        Ok(true)
    }

    /// Starts the next daemon: where there are two builds, of the one whose turn it is.
    fn start(&mut self) {
        let other = self.other.as_deref().filter(|_| self.turn);
        self.daemon = spawn(&self.lab, &self.file, other);
        self.turn = !self.turn;
    }

    /// Starts a daemon that is killed on its way. False where it comes up before.
    fn killed_at_start(&mut self, successor: usize) -> Result<bool> {
        let at = self.starts[successor];
        fs::write(&self.file, at.to_string())?;
        self.start();
        let over = wait_for(SOON, || (self.daemon.ended().is_some() || ask(&self.lab, PING).is_some()).then_some(()));
        over.context("a successor neither starts nor is killed")?;
        let killed = !self.file.exists();
        let _ = fs::remove_file(&self.file);
        if killed {
            wait_for(SOON, || self.daemon.ended()).context("a successor does not end")?;
            self.report.kills += 1;
            // In steps that meet all effects in the end, and other ones of each other's.
            self.starts[successor] = at + 1 + 4 * successor as u64;
        } else {
            self.report.effects.insert("start".to_owned(), at);
            self.starts[successor] = (at + 1) % (1 + 4 * successor as u64);
        }
        Ok(killed)
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).map_or(0, Iterator::count)
    }

    /// Looks whether a change was made or not, and nothing between; then makes it.
    fn check(&mut self, change: Change, before: World) -> Result<()> {
        self.report.checks += 1;
        let after = change.after(before);
        self.stands(&[before, after])?;
        self.works()?;
        // Where it was made already, it is refused or the same again.
        ask(&self.lab, change.request()).context("the daemon is gone")?;
        self.stands(&[after])?;
        self.works()?;
        let pins: BTreeSet<PathBuf> = files(self.lab.pins()).into_iter().collect();
        ensure!(pins == self.pins, "other pins: {:?}", pins.symmetric_difference(&self.pins).collect::<Vec<_>>());
        let open = self.open_files();
        ensure!(open <= self.descriptors + 12, "{open} descriptors, {} at the beginning", self.descriptors);
        Ok(())
    }

    /// Whether the kernel and the recipient's file say what one of these worlds has, and nothing else.
    fn stands(&mut self, worlds: &[World]) -> Result<()> {
        let shown = self.show()?;
        let same = worlds.iter().find(|world| self.shown.get(world) == Some(&shown));
        if let Some(world) = same {
            self.now = *world;
            return Ok(());
        }
        for world in worlds {
            let wanted = &self.shown[world];
            let more: Vec<_> = shown.kernel.difference(&wanted.kernel).collect();
            let less: Vec<_> = wanted.kernel.difference(&shown.kernel).collect();
            eprintln!("of {world:?} the kernel lacks {less:#?} and has beside it {more:#?}");
            eprintln!("/etc/hosts is {:?}, of {:?}", shown.hosts, wanted.hosts);
        }
        bail!("the kernel or /etc/hosts is as none of {worlds:?} has it");
    }

    /// Whether what is published and linked is reached, and nothing else; and what is held goes on.
    fn works(&mut self) -> Result<()> {
        for talk in &mut self.held {
            talk.transfer(50_000, |_| ()).context("a connection that was held")?;
        }
        let World { published, linked } = self.now;
        let reaches = |ns: &Netns, to| wait_for(SOON, || Talk::open(ns, to).ok()).is_some();
        match published {
            true => ensure!(reaches(self.lab.client(), (HOST, PORT).into()), "published, and not reached"),
            false => ensure!(Talk::open(self.lab.client(), (HOST, PORT)).is_err(), "reached, and not published"),
        }
        match linked {
            true => ensure!(reaches(&self.recipient, self.source), "linked, and not reached"),
            false => self.is_refused()?,
        }
        Ok(())
    }

    /// Whether the recipient's attempt at the source is dropped: by the datapath's word, for silence takes its time.
    fn is_refused(&self) -> Result<()> {
        let refused = || self.lab.counters().packets("not_linked");
        let before = refused();
        let attempt = self.recipient.within(|| -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            match socket.connect(&SockAddr::from(self.source)) {
                Err(e) if e.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(e),
                _ => Ok(socket),
            }
        })?;
        let dropped = wait_for(SOON, || {
            let connected = attempt.peer_addr().is_ok();
            (connected || refused() > before).then_some(!connected)
        });
        ensure!(dropped == Some(true), "not linked, and not refused: {dropped:?}");
        Ok(())
    }

    /// Whether programs, maps and links of earlier daemons are gone, but those that are still pinned.
    fn nothing_leaks(&mut self) -> Result<()> {
        let now = objects(&self.lab);
        self.seen.extend(now.iter().cloned());
        let left = || remaining(&self.lab, &self.seen).difference(&now).cloned().collect::<Vec<_>>();
        wait_for(SOON, || left().is_empty().then_some(()))
            .with_context(|| format!("objects of earlier daemons are left: {:?}", left()))?;
        self.seen = now;
        Ok(())
    }

    fn end(mut self) -> Result<Report> {
        self.nothing_leaks()?;
        for talk in &mut self.held {
            talk.transfer(1_000_000, |_| ()).context("a transfer at the end")?;
        }
        self.lab.down();
        ensure!(files(self.lab.pins()).is_empty(), "pins are left");
        let left = || remaining(&self.lab, &self.seen);
        wait_for(SOON, || left().is_empty().then_some(()))
            .with_context(|| format!("left in the kernel: {:?}", left()))?;
        Ok(self.report)
    }
}

fn spawn(lab: &Lab, file: &Path, other: Option<&Path>) -> Background {
    let command = lab.runtime_command(["up"]);
    let mut words = vec!["env".into(), format!("RUNTIME_KILL_AT={}", file.display()).into()];
    let ours = std::iter::once(command.get_program()).chain(command.get_args());
    // The Engine's own programs may have to be found first: then the command begins with `env`.
    let is_runtime = |word: &std::ffi::OsStr| Path::new(word).file_name().is_some_and(|name| name == "runtime");
    let mut other = other;
    for word in ours {
        let another = if is_runtime(word) { other.take() } else { None };
        words.push(another.map_or_else(|| word.to_owned(), |path| path.as_os_str().to_owned()));
    }
    lab.host().spawn(&lab.dir().join("runtime.log"), words)
}

fn wait(lab: &Lab, daemon: &mut Background) -> Result<()> {
    let up = wait_for(SOON, || (daemon.ended().is_some() || ask(lab, PING).is_some()).then_some(()));
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
