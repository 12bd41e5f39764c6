//! How long changes take until clients notice, and what the daemon and its maps weigh.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use runtime_api::{Filter, Link, Publish};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tests::crowd::Crowd;
use tests::{Container, HOST, Image, Lab, Netns, Up, wait_for};

use crate::progress;
use crate::report::Table;
use crate::stats::{quantile, sorted};
use crate::units::value;

/// Ends of the ranges that begin at this port.
const RANGE: u16 = 20_000;
const SIZES: [u16; 3] = [1, 200, 10_000];
/// How long between two attempts of a client, so many of which are under way: none waits for another that is dropped.
const PAUSE: Duration = Duration::from_micros(200);
const ATTEMPTS: usize = 16;
/// How long a server may take for its first byte.
const ANSWER: Duration = Duration::from_millis(10);
/// How many containers a large host has here.
const CROWD: usize = 1_000;
/// How long a change may take before that is the result.
const LIMIT: Duration = Duration::from_secs(60);
/// The same for what takes minutes elsewhere.
const LONG: Duration = Duration::from_secs(600);

/// Two hosts: Docker with its rules, and this datapath with a Docker that makes none.
struct Labs {
    docker: Lab,
    ours: Lab,
    up: Up,
    source: Container,
}

/// Times of one thing, in seconds.
struct Times {
    what: String,
    who: &'static str,
    seconds: Vec<f64>,
    note: String,
}

/// The control tables.
pub fn measure(quick: bool) -> Result<Vec<Table>> {
    let mut labs = Labs::make();
    let mut all = Vec::new();
    let (few, many) = if quick { (3, 10) } else { (20, 100) };
    run_to_first_byte(&labs, few, &mut all)?;
    live_changes(&labs, many, "", &mut all)?;
    let idle = memory(&labs, "one container")?;
    ranges(&labs, quick, &mut all)?;
    docker_restarts(&mut labs.docker, if quick { 1 } else { 5 }, &mut all)?;
    let full = publish(&labs, SIZES[2], LIMIT)?;
    if full.is_none() {
        bail!("a range of {} ports is not served within {LIMIT:?}", SIZES[2]);
    }
    live_changes(&labs, many, ", with 10,000 published ports", &mut all)?;
    let loaded = memory(&labs, "10,000 published ports")?;
    let labs = restarts(labs, if quick { 2 } else { 10 }, &mut all)?;
    labs.up.stop();
    labs.ours.down();
    largest_range(&labs.docker, quick, &mut all)?;
    drop((labs.docker, labs.ours));
    let weights: Vec<Weight> = idle.into_iter().chain(loaded).collect();
    Ok(vec![times(&all), weight(&weights)])
}

impl Labs {
    fn make() -> Labs {
        let docker = Lab::builder("control, Docker").images(&[Image::Echo]).engine_arg("--live-restore").build();
        let ours = Lab::builder("control, this datapath").images(&[Image::Echo]).without_iptables().build();
        let up = ours.up(&[]);
        start(&ours);
        start(&docker);
        for name in ["recipient", "bystander"] {
            ours.start(name, &["busybox", "sleep", "1000000"]);
        }
        // Not the one with the ranges: a link opens all that its source publishes.
        let source = ours.start("source", &["--expose", "7", "echo", "peer", "tcp:[::]:7"]);
        Labs { docker, ours, up, source }
    }
}

/// A server on every port that a range ends with.
fn start(lab: &Lab) -> Container {
    let words = servers();
    lab.start("server", &["echo", "peer"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>())
}

fn servers() -> Vec<String> {
    [7].into_iter().chain(SIZES.map(|size| RANGE + size - 1)).map(|port| format!("tcp:[::]:{port}")).collect()
}

/// Makes a change, and tells how long it is from its beginning until a client in `from` is sent the first byte by the server at
/// `to`; `None` when that takes longer than `limit`.
fn effective(
    change: impl FnOnce() -> Result<()>,
    from: &Netns,
    to: SocketAddr,
    limit: Duration,
) -> Result<Option<f64>> {
    let gave_up = AtomicBool::new(false);
    let (ready, begin) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            from.within(|| {
                let start = Instant::now();
                let mut attempts = VecDeque::new();
                // Nobody waits for it where the change failed before.
                let _ = ready.send(());
                while start.elapsed() < limit && !gave_up.load(Ordering::Relaxed) {
                    if first_byte(to, &mut attempts) {
                        return Some(Instant::now());
                    }
                }
                None
            })
        });
        begin.recv().context("the client did not begin")?;
        let start = Instant::now();
        let changed = change();
        gave_up.store(changed.is_err(), Ordering::Relaxed);
        let served = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        changed?;
        Ok(served.map(|end| (end - start).as_secs_f64()))
    })
}

/// Runs a command to its end on a lab's host, which must be a good one.
fn finish(lab: &Lab, mut command: Command, limit: Duration) -> Result<()> {
    let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = lab.host().within(|| command.spawn()).with_context(|| name.clone())?;
    let status = wait_for(limit, || child.try_wait().transpose());
    // It has ended, or takes too long.
    let _ = child.kill();
    let output = child.wait_with_output().with_context(|| name.clone())?;
    if status.transpose()?.is_some_and(|s| !s.success()) {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Begins one more attempt to connect, and looks after all of them until it is time for the next: whether the server has spoken
/// to one.
fn first_byte(to: SocketAddr, attempts: &mut VecDeque<TcpStream>) -> bool {
    let next = Instant::now() + PAUSE;
    attempts.extend(begin(to));
    if attempts.len() > ATTEMPTS {
        attempts.pop_front();
    }
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let mut polled: Vec<_> = attempts.iter().map(|a| PollFd::new(a.as_fd(), PollFlags::POLLOUT)).collect();
        // Interrupted or not, they are looked at.
        let _ = ppoll(&mut polled, Some(left.into()), None);
        let decided: Vec<bool> = polled.iter().map(|p| p.any().unwrap_or_default()).collect();
        let (ended, open) =
            std::mem::take(attempts).into_iter().zip(decided).partition::<Vec<_>, _>(|(_, decided)| *decided);
        attempts.extend(open.into_iter().map(|(attempt, _)| attempt));
        if ended.into_iter().any(|(attempt, _)| is_served(attempt).unwrap_or(false)) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// A connection under way; `None` where it is refused at once.
fn begin(to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None).ok()?;
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => None,
        _ => Some(socket.into()),
    }
}

/// Whether the server speaks over a connection whose beginning is decided.
fn is_served(stream: TcpStream) -> std::io::Result<bool> {
    if let Some(refused) = stream.take_error()? {
        return Err(refused);
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.starts_with("peer "))
}

fn run_to_first_byte(labs: &Labs, rounds: usize, all: &mut Vec<Times>) -> Result<()> {
    let words = ["run", "-d", "--name", "one", "--stop-signal=SIGKILL", "-p", "8080:7", "echo", "peer", "tcp:[::]:7"];
    let ours: Vec<&str> = words.iter().filter(|w| !w.starts_with("--stop")).copied().collect();
    let to = SocketAddr::from((HOST, 8080));
    let mut seconds = [const { Vec::new() }; 3];
    for round in 0..rounds {
        progress(&format!("control: docker run -p, round {} of {rounds}", round + 1));
        let turns: [(&Lab, Command); 3] = [
            (&labs.docker, labs.docker.docker_command(words)),
            (&labs.ours, labs.ours.docker_command(words)),
            (&labs.ours, labs.ours.runtime_command(&ours)),
        ];
        for ((lab, command), seconds) in turns.into_iter().zip(&mut seconds) {
            let time = effective(|| finish(lab, command, LIMIT), lab.client(), to, LIMIT)?;
            let time = time.context("a published port is not served")?;
            seconds.push(time);
            lab.docker(["rm", "-f", "one"]).ok();
        }
    }
    let [docker, theirs, own] = seconds;
    let what = "`docker run -d -p` to the first byte served";
    all.push(Times::new(what, "Docker", docker, "with its iptables"));
    all.push(Times::new(what, "this datapath", theirs, "the same command; Docker makes no rules"));
    all.push(Times::new(what, "this datapath", own, "`runtime run -d -p`"));
    Ok(())
}

/// Publishing and linking what runs.
fn live_changes(labs: &Labs, rounds: usize, with: &str, all: &mut Vec<Times>) -> Result<()> {
    let lab = &labs.ours;
    let recipient = lab.container("recipient").ns();
    let mut seconds = [const { Vec::new() }; 4];
    for round in 0..rounds {
        progress(&format!("control: publish and link{with}, round {} of {rounds}", round + 1));
        let port = 9000 + u16::try_from(round)?;
        let spec = format!("{port}:7");
        let publish = || Publish { container: "server".to_owned(), spec: spec.clone(), filter: Filter::default() };
        let [recipient_name, source, alias] = ["recipient", "source", "alias"].map(str::to_owned);
        let link = Link { recipient: recipient_name, source, alias, all_ports: false };
        let by_command = |words: &[&str]| finish(lab, lab.runtime_command(words), LIMIT);
        for by_socket in [true, false] {
            let change = || {
                if by_socket {
                    Ok(lab.daemon().call(publish()).map(drop)?)
                } else {
                    by_command(&["publish", "server", &spec])
                }
            };
            let time = effective(change, lab.client(), (HOST, port).into(), LIMIT)?;
            seconds[usize::from(!by_socket)].push(time.context("a publication is not served")?);
            lab.runtime(["unpublish", "server", &spec]).ok();
            let change = || {
                if by_socket {
                    Ok(lab.daemon().call(link.clone()).map(drop)?)
                } else {
                    by_command(&["link", "recipient", "source:alias"])
                }
            };
            let time = effective(change, &recipient, labs.source.at(7), LIMIT)?;
            seconds[2 + usize::from(!by_socket)].push(time.context("a link does not open its source")?);
            lab.runtime(["unlink", "recipient", "alias"]).ok();
        }
    }
    let whats = ["publish, asked by the socket", "`runtime publish`", "link, asked by the socket", "`runtime link`"];
    for (what, seconds) in whats.into_iter().zip(seconds) {
        let docker = "Docker has no equivalent: it makes the container anew";
        all.push(Times::new(&format!("{what}, to effective{with}"), "this datapath", seconds, docker));
    }
    Ok(())
}

/// Publishes a range of a running container; seconds until its last port is served.
fn publish(labs: &Labs, size: u16, limit: Duration) -> Result<Option<f64>> {
    let last = RANGE + size - 1;
    let command = labs.ours.runtime_command(["publish", "server", &format!("{RANGE}-{last}:{RANGE}-{last}")]);
    effective(|| finish(&labs.ours, command, limit), labs.ours.client(), (HOST, last).into(), limit)
}

fn ranges(labs: &Labs, quick: bool, all: &mut Vec<Times>) -> Result<()> {
    for size in SIZES {
        progress(&format!("control: a range of {size} ports"));
        let rounds = if quick || size == SIZES[2] { 1 } else { 3 };
        let (mut own, mut ours, mut docker) = (Vec::new(), Vec::new(), Vec::new());
        let last = RANGE + size - 1;
        for _ in 0..rounds {
            own.extend(publish(labs, size, LIMIT)?);
            labs.ours.runtime(["unpublish", "server", &format!("{RANGE}-{last}:{RANGE}-{last}")]).ok();
            // What takes Docker's rules minutes comes last of all.
            if size != SIZES[2] {
                docker.extend(run_range(&labs.docker, size)?);
                remove(&labs.docker)?;
            }
            if size != SIZES[2] || !quick {
                ours.extend(run_range(&labs.ours, size)?);
                remove(&labs.ours)?;
            }
        }
        let what = range_of(size);
        all.push(Times::new(&what, "this datapath", own, "`runtime publish`, live"));
        all.push(Times::new(&what, "this datapath", ours, "`docker run -p`, Docker makes no rules"));
        if size != SIZES[2] {
            all.push(Times::new(&what, "Docker", docker, "`docker run -p`, with its iptables"));
        }
    }
    Ok(())
}

fn range_of(size: u16) -> String {
    format!("range of {size} ports to effective")
}

/// Docker's rules for the largest range, after which its lab is good for nothing else.
fn largest_range(docker: &Lab, quick: bool, all: &mut Vec<Times>) -> Result<()> {
    progress("control: a range of 10,000 ports by Docker's iptables, up to ten minutes");
    let time = if quick { None } else { run_range(docker, SIZES[2])? };
    let note = match (quick, time) {
        (true, _) => "left out of a quick run",
        (_, None) => "not within ten minutes",
        (_, Some(_)) => "`docker run -p`, with its iptables",
    };
    all.push(Times::new(&range_of(SIZES[2]), "Docker", time.into_iter().collect(), note));
    Ok(())
}

/// A container with a range of ports; seconds until the last is served.
fn run_range(lab: &Lab, size: u16) -> Result<Option<f64>> {
    let (servers, last) = (servers(), RANGE + size - 1);
    let range = format!("{RANGE}-{last}:{RANGE}-{last}");
    let words = ["run", "-d", "--name", "many", "--stop-signal=SIGKILL", "-p", &range, "echo", "peer"];
    let command = lab.docker_command(words.into_iter().chain(servers.iter().map(String::as_str)));
    effective(|| finish(lab, command, LONG), lab.client(), (HOST, last).into(), LONG)
}

/// Taking a range away takes Docker as long as making it.
fn remove(lab: &Lab) -> Result<()> {
    let removed = lab.docker_command(["rm", "-f", "many"]).stdout(Stdio::null()).status()?;
    if !removed.success() {
        bail!("`docker rm -f many` failed ({removed})");
    }
    Ok(())
}

/// Restarts dockerd while a container with a range of ports runs on.
fn docker_restarts(docker: &mut Lab, rounds: usize, all: &mut Vec<Times>) -> Result<()> {
    let size = SIZES[1];
    if run_range(docker, size)?.is_none() {
        bail!("Docker does not serve a range of {size} ports within {LONG:?}");
    }
    let mut seconds = Vec::new();
    for round in 0..rounds {
        progress(&format!("control: restart of dockerd, round {} of {rounds}", round + 1));
        docker.stop_engine();
        let start = Instant::now();
        docker.start_engine();
        seconds.push(start.elapsed().as_secs_f64());
    }
    remove(docker)?;
    let what = format!("`dockerd`, until it answers, with {size} published ports");
    all.push(Times::new(&what, "Docker", seconds, "`--live-restore`: it makes its rules anew"));
    Ok(())
}

/// Kills the daemon, and starts the next, which finds the range of ports and its containers.
fn restarts(labs: Labs, rounds: usize, all: &mut Vec<Times>) -> Result<Labs> {
    let Labs { docker, ours, mut up, source } = labs;
    let mut seconds = Vec::new();
    for round in 0..rounds {
        progress(&format!("control: restart, round {} of {rounds}", round + 1));
        up.kill();
        let start = Instant::now();
        up = ours.up(&[]);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let what = "`runtime up` after a kill, until it answers, with 10,000 published ports";
    all.push(Times::new(what, "this datapath", seconds, "traffic goes on meanwhile"));
    Ok(Labs { docker, ours, up, source })
}

/// The daemon's first start, its restarts and its end where there are many containers.
pub fn measure_crowd(quick: bool) -> Result<Vec<Table>> {
    let (size, rounds) = if quick { (CROWD / 5, 3) } else { (CROWD, 10) };
    progress(&format!("crowd: making {size} containers"));
    let crowd = Crowd::make(size)?;
    let (mut daemon, first) = crowd.up()?;
    let mut seconds = Vec::new();
    for round in 0..rounds {
        progress(&format!("crowd: restart, round {} of {rounds}", round + 1));
        daemon.kill();
        let (next, time) = crowd.up()?;
        daemon = next;
        seconds.push(time);
    }
    let weights = [Weight { what: format!("the daemon, {size} containers"), bytes: resident(daemon.pid())? }];
    let start = Instant::now();
    crowd.down()?;
    let down = start.elapsed().as_secs_f64();
    let note = format!("{size} published ports, {} links; the Engine is a stand-in that answers at once", size / 2);
    let what = format!("`runtime up` until all is served, {size} containers");
    let all = [
        Times::new(&format!("{what}: first start"), "this datapath", vec![first], &note),
        Times::new(&format!("{what}: after a kill"), "this datapath", seconds, &note),
        Times::new(&format!("`runtime down`, {size} containers"), "this datapath", vec![down], &note),
    ];
    Ok(vec![times(&all), weight(&weights)])
}

impl Times {
    fn new(what: &str, who: &'static str, seconds: Vec<f64>, note: &str) -> Self {
        Times { what: what.to_owned(), who, seconds: sorted(seconds), note: note.to_owned() }
    }

    fn row(&self) -> Vec<String> {
        let at = |share: f64| match self.seconds.len() {
            0 => "-".to_owned(),
            _ => value(quantile(&self.seconds, share), "s"),
        };
        let times = format!("{} / {}", at(0.5), at(0.99));
        vec![self.what.clone(), self.who.to_owned(), times, self.seconds.len().to_string(), self.note.clone()]
    }
}

fn times(all: &[Times]) -> Table {
    let json: Vec<Value> =
        all.iter().map(|t| json!({"what": t.what, "who": t.who, "note": t.note, "seconds": t.seconds})).collect();
    Table {
        title: "Control: how long changes take".to_owned(),
        note: "From the start of the command, or of the request on the daemon's socket, to the first byte that a client is sent: p50 / p99 (of few rounds: the slowest).".to_owned(),
        head: ["what", "who", "p50 / p99", "rounds", "how"].map(str::to_owned).into(),
        rows: all.iter().map(Times::row).collect(),
        lines: vec![],
        json: json.into(),
    }
}

/// What something weighs, in bytes.
struct Weight {
    what: String,
    bytes: u64,
}

fn memory(labs: &Labs, state: &str) -> Result<Vec<Weight>> {
    let dockerd: u32 = std::fs::read_to_string(labs.docker.dir().join("docker.pid"))?.trim().parse()?;
    let mut maps = 0;
    for entry in std::fs::read_dir(labs.ours.pins().join("maps")).context("the folder of the maps' pins")?.flatten() {
        let path = entry.path();
        let path = path.to_str().context("a pin's path is not UTF-8")?;
        let shown = labs.ours.host().run(["bpftool", "-j", "map", "show", "pinned", path]).ok();
        let shown: Value = serde_json::from_str(&shown).context("bpftool's answer")?;
        maps += shown["bytes_memlock"].as_u64().context("bpftool tells no bytes_memlock")?;
    }
    let mut all = vec![
        Weight { what: format!("the daemon, {state}"), bytes: resident(labs.up.pid())? },
        Weight { what: format!("all maps, {state}"), bytes: maps },
    ];
    if state.starts_with("one") {
        all.push(Weight { what: format!("dockerd for comparison, {state}"), bytes: resident(dockerd)? });
    }
    Ok(all)
}

/// Resident memory of a process, or of the program that `nsenter` has become.
fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>()?)
}

fn weight(all: &[Weight]) -> Table {
    let json: Vec<Value> = all.iter().map(|w| json!({"what": w.what, "bytes": w.bytes})).collect();
    Table {
        title: "Control: memory".to_owned(),
        note: "Resident memory of processes; of maps, what the kernel accounts for them.".to_owned(),
        head: ["what", "memory"].map(str::to_owned).into(),
        rows: all.iter().map(|w| vec![w.what.clone(), value(w.bytes as f64, "bytes")]).collect(),
        lines: vec![],
        json: json.into(),
    }
}
