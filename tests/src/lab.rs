//! Making a lab and tearing it down.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use runtime_api::BlockingClient;

use crate::container::Container;
use crate::engine::{Client, Engine, EngineName, tail};
use crate::images::Image;
use crate::netns::Netns;
use crate::process::{Background, Done};
use crate::runtime::{Counters, Up, beside};
use crate::wait::wait_for;
use crate::wiring::{Wiring, network};
use crate::{requirements, sweep};

/// The host's address on the LAN.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The first client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The second client's address, unless it has a network of its own.
pub const CLIENT2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// The host's address on its second uplink.
pub const HOST2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// How long the daemon may take until it serves, and a counter until it moves.
const READY: Duration = Duration::from_secs(20);
const COUNTED: Duration = Duration::from_secs(2);

/// What a lab is to have.
#[derive(Clone, Debug)]
pub struct Builder {
    title: String,
    images: Vec<Image>,
    wiring: Wiring,
    engine: Option<EngineName>,
    engine_args: Vec<String>,
}

impl Builder {
    /// The images to import.
    pub fn images(mut self, images: &[Image]) -> Self {
        self.images.extend(images);
        self
    }

    /// A second client on the LAN.
    pub fn client2(mut self) -> Self {
        self.wiring.client2 = true;
        self
    }

    /// A second uplink `eth1` of the host, 198.51.100.0/24, with the second client (198.51.100.2) behind it.
    pub fn second_uplink(mut self) -> Self {
        self.wiring.client2 = true;
        self.wiring.second_uplink = true;
        self
    }

    /// Clients compute checksums and cut segments themselves, as a sender on a wire would have done.
    pub fn without_client_offloads(mut self) -> Self {
        self.wiring.offloads = false;
        self
    }

    /// The MTU of the LAN, in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.wiring.mtu = Some(mtu);
        self
    }

    /// The Engine makes no rules of the firewall: from Docker 27 on, it makes those of IPv6 unless told otherwise.
    pub fn without_iptables(self) -> Self {
        self.engine_arg("--iptables=false").engine_arg("--ip6tables=false")
    }

    /// The Engine's containers reach each other only over links.
    pub fn without_icc(self) -> Self {
        self.engine_arg("--icc=false")
    }

    /// This Engine, whichever the others are run on: without, the one that `RUNTIME_LAB_ENGINE` names, or else the machine's.
    pub fn engine(mut self, engine: EngineName) -> Self {
        self.engine = Some(engine);
        self
    }

    /// One more argument for dockerd; Podman takes none.
    pub fn engine_arg(mut self, arg: &str) -> Self {
        self.engine_args.push(arg.to_owned());
        self
    }

    /// Makes the lab.
    ///
    /// # Panics
    /// When something is missing, with the remedy. Nothing half-made stays.
    #[track_caller]
    pub fn build(self) -> Lab {
        match Lab::make(&self) {
            Ok(lab) => lab,
            Err(e) => panic!("the lab for {}: {e:#}", self.title),
        }
    }
}

/// Namespaces, an Engine and folders of one's own. Removed when dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    pins: PathBuf,
    client: Netns,
    client2: Option<Netns>,
    host: Netns,
    engine: Engine,
    docker: Client,
    /// Removes everything when dropped: after the fields above, in the order of declaration.
    _remains: Remains,
}

/// Removes everything under a lab's name when dropped; made first, so that it works for a half-made lab too.
#[derive(Debug)]
struct Remains(String);

impl Drop for Remains {
    fn drop(&mut self) {
        if let Err(e) = sweep::remove(&self.0) {
            eprintln!("the lab {} leaves something behind: {e:#}", self.0);
        }
    }
}

impl Lab {
    /// A lab with one client and the busybox image; `title` is for messages.
    #[track_caller]
    pub fn new(title: &str) -> Lab {
        Lab::builder(title).build()
    }

    /// A lab of one's own choice. The busybox image is always there.
    pub fn builder(title: &str) -> Builder {
        Builder {
            title: title.to_owned(),
            images: vec![Image::Busybox],
            wiring: Wiring { client2: false, second_uplink: false, offloads: true, mtu: None },
            engine: None,
            engine_args: vec!["--userland-proxy=false".to_owned()],
        }
    }

    fn make(wish: &Builder) -> Result<Lab> {
        static LABS: AtomicUsize = AtomicUsize::new(1);
        let engine = wish.engine.map_or_else(EngineName::from_environment, Ok)?;
        requirements::check()?;
        sweep::sweep()?;
        let name = sweep::name(LABS.fetch_add(1, Ordering::Relaxed));
        let remains = Remains(name.clone());
        let dir = sweep::folder(&name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let pins = requirements::bpffs()?.join(&name);
        fs::create_dir_all(&pins).with_context(|| format!("cannot make {}", pins.display()))?;

        let (host, client, client2) = network(&name, wish.wiring)?;
        let mut engine = Engine::new(engine, host.clone(), &dir, wish.engine_args.clone())?;
        engine.start()?;
        let docker = engine.client();
        for image in &wish.images {
            image.import(&docker)?;
        }
        Ok(Lab { name, dir, pins, client, client2, host, engine, docker, _remains: remains })
    }

    /// The name that everything of this lab carries.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for files of this lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A client of the daemon's, without a process of its own.
    pub fn daemon(&self) -> BlockingClient {
        BlockingClient::new(self.dir.join("run"))
    }

    /// The folder in which the daemon pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The client's namespace.
    pub fn client(&self) -> &Netns {
        &self.client
    }

    /// The second client's namespace.
    ///
    /// # Panics
    /// When the lab was built without.
    #[track_caller]
    pub fn client2(&self) -> &Netns {
        match &self.client2 {
            Some(ns) => ns,
            None => panic!("this lab has no second client: build it with `client2()`"),
        }
    }

    /// The host's namespace, in which the Engine and the daemon run.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// Runs `docker` against this lab's Engine.
    #[track_caller]
    pub fn docker(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        loud(self.docker.run(words))
    }

    /// A `docker` command against this lab's Engine, to be run in one's own way.
    pub fn docker_command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> std::process::Command {
        let mut command = loud(self.docker.command());
        command.args(words);
        command
    }

    /// A `runtime` command against this lab's Engine and folders, to be run in one's own way, from within its host.
    ///
    /// # Panics
    /// When it has not been built.
    #[track_caller]
    pub fn runtime_command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> std::process::Command {
        let words = self.runtime_words(words);
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// As [`Lab::runtime_command`], looking for programs in `first` before all others.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn runtime_command_finding(
        &self,
        first: &Path,
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> std::process::Command {
        let mut path = OsString::from("PATH=");
        path.push(first);
        path.push(":");
        let mut words = self.runtime_words(words);
        let own = std::env::var_os("PATH").unwrap_or_default();
        match words.get(1).and_then(|w| w.to_str()?.strip_prefix("PATH=").map(str::to_owned)) {
            Some(of_engine) => {
                path.push(of_engine);
                words[1] = path;
            }
            None => {
                path.push(own);
                words.splice(0..0, ["env".into(), path]);
            }
        }
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Starts a container in the background with `docker run -d --name NAME` and these words. It stops at once when it is to:
    /// as first processes of a container, most programs would not hear a SIGTERM.
    #[track_caller]
    pub fn start(&self, name: &str, words: &[&str]) -> Container {
        self.docker(["run", "-d", "--stop-signal=SIGKILL", "--name", name].iter().chain(words)).ok();
        self.container(name)
    }

    /// Starts a container in the background with `runtime run -d --name NAME` and these words.
    #[track_caller]
    pub fn run(&self, name: &str, words: &[&str]) -> Container {
        self.runtime(["run", "-d", "--name", name].iter().chain(words)).ok();
        self.container(name)
    }

    /// Starts a container again at another address: a filler gets the old one meanwhile.
    #[track_caller]
    pub fn move_container(&self, container: &Container) {
        let before = container.ip();
        self.docker(["stop", "-t", "0", container.name()]).ok();
        let address = format!("--ip={before}");
        // Docker takes the lowest free one by itself, and no wishes on its default bridge; Podman goes round.
        let wish = self.engine().is_podman().then_some(address.as_str());
        let words: Vec<&str> = wish.into_iter().chain(["busybox", "sleep", "100000"]).collect();
        let filler = self.start(&format!("filler-{}", before.octets()[3]), &words);
        assert_eq!(filler.ip(), before, "the Engine gives the filler another address");
        self.docker(["start", container.name()]).ok();
        assert_ne!(container.ip(), before, "the container has its old address");
    }

    /// A container by name or id.
    pub fn container(&self, name: &str) -> Container {
        Container::new(self.docker.clone(), name)
    }

    /// The name of the network that containers are on when none was given.
    pub fn default_network(&self) -> &'static str {
        self.docker.default_network()
    }

    /// Which Engine it is.
    pub fn engine(&self) -> EngineName {
        self.engine.name()
    }

    /// A program of the Engine's own (`podman`, `ctr`), to be run among its files.
    #[track_caller]
    pub fn engine_command(&self, program: &str) -> std::process::Command {
        loud(if program == "podman" { self.engine.podman_command() } else { self.engine.command(program) })
    }

    /// Ends the Engine without a chance to tidy up, as `kill -9` does.
    pub fn kill_engine(&mut self) {
        self.engine.kill();
    }

    /// Stops the Engine.
    #[track_caller]
    pub fn stop_engine(&mut self) {
        loud(self.engine.stop());
    }

    /// Starts the Engine again.
    #[track_caller]
    pub fn start_engine(&mut self) {
        loud(self.engine.start());
    }

    /// Runs the `runtime` command against this lab's Engine and folders.
    ///
    /// # Panics
    /// When it has not been built.
    #[track_caller]
    pub fn runtime(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        self.host.run(self.runtime_words(words))
    }

    /// As [`Lab::runtime`], but started by another program: its words come first.
    #[track_caller]
    pub fn runtime_by(&self, starter: &[&str], words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        let starter = starter.iter().map(|w| OsString::from(*w));
        self.host.run(starter.chain(self.runtime_words(words)))
    }

    /// The `runtime` command that knows nothing of this lab: where the Engine, the daemon and the pins are at their usual places.
    #[track_caller]
    pub(crate) fn plain_runtime_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(loud(beside("runtime", "cargo build -p runtime")));
        if let Some((name, path)) =
            self.engine.path().as_deref().and_then(OsStr::to_str).and_then(|p| p.split_once('='))
        {
            command.env(name, path);
        }
        command
    }

    #[track_caller]
    fn runtime_words(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        if let Some(path) = self.engine.path() {
            all.extend(["env".into(), path]);
        }
        all.push(loud(beside("runtime", "cargo build -p runtime")).into_os_string());
        all.extend(["--docker-host".into(), self.docker.address().into()]);
        all.extend(["--run-dir".into(), self.dir.join("run").into()]);
        all.extend(["--state-dir".into(), self.dir.join("state").into()]);
        all.extend(["--bpffs".into(), self.pins.clone().into()]);
        all.extend(words.into_iter().map(|w| w.as_ref().to_owned()));
        all
    }

    /// Starts `runtime up` in the foreground and waits until it serves.
    ///
    /// # Panics
    /// When it ends, or does not serve in time, with what it wrote.
    #[track_caller]
    pub fn up(&self, words: &[&str]) -> Up {
        self.up_while(words, |_| ())
    }

    /// As [`Lab::up`]; `meanwhile` is called before anything is waited for.
    #[track_caller]
    pub fn up_while(&self, words: &[&str], meanwhile: impl FnOnce(&Background)) -> Up {
        let words = self.runtime_words(["up"].iter().chain(words));
        let mut process = loud(Background::start(
            {
                let mut command = self.host.command(&words[0]);
                command.args(&words[1..]);
                command
            },
            &self.runtime_log(),
        ));
        meanwhile(&process);
        let mut ended = None;
        let ready = wait_for(READY, || {
            ended = process.ended();
            (ended.is_some() || self.runtime(["status", "--format", "json"]).success()).then_some(())
        });
        if ended.is_some() || ready.is_none() {
            let why = ended.map_or(format!("does not serve within {READY:?}"), |s| format!("ended ({s})"));
            panic!("runtime up {why}; it wrote:\n{}", tail(&process.output(), 40));
        }
        Up { process }
    }

    /// Takes the datapath away with `runtime down`.
    #[track_caller]
    pub fn down(&self) {
        self.runtime(["down"]).ok();
    }

    fn runtime_log(&self) -> PathBuf {
        self.dir.join("runtime.log")
    }

    /// What `runtime status --format json` reports.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let text = self.runtime(["status", "--format", "json"]).ok();
        match serde_json::from_str(&text) {
            Ok(status) => status,
            Err(e) => panic!("runtime status prints no JSON ({e}): {text}"),
        }
    }

    /// Packets by verdict.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        let pinned = self.pins.join("maps/COUNTERS");
        if pinned.exists() {
            return loud(Counters::pinned(&pinned));
        }
        self.status_counters()
    }

    /// Packets by verdict as `status` has them: with what the daemon's relay refuses, which no program sees.
    #[track_caller]
    pub fn status_counters(&self) -> Counters {
        loud(Counters::parse(&self.runtime(["status", "--format", "json"]).ok()))
    }

    /// Packets by drop reason.
    #[track_caller]
    pub fn drops(&self) -> std::collections::BTreeMap<String, u64> {
        self.counters().drops()
    }

    /// Asserts that the datapath drops at least one packet for `reason` while `action` runs; gives what `action` does.
    #[track_caller]
    pub fn assert_dropped<T>(&self, reason: &str, action: impl FnOnce() -> T) -> T {
        self.assert_counted(reason, || self.counters(), action)
    }

    /// As [`Lab::assert_dropped`], of what the daemon's relay refuses.
    #[track_caller]
    pub fn assert_relay_dropped<T>(&self, reason: &str, action: impl FnOnce() -> T) -> T {
        self.assert_counted(reason, || self.status_counters(), action)
    }

    #[track_caller]
    fn assert_counted<T>(&self, reason: &str, look: impl Fn() -> Counters, action: impl FnOnce() -> T) -> T {
        let before = look();
        let result = action();
        if wait_for(COUNTED, || (look().packets(reason) > before.packets(reason)).then_some(())).is_none() {
            panic!("no packet was dropped as {reason}; counted meanwhile: {}", look().since(&before));
        }
        result
    }

    /// Asserts that the datapath carries packets while `action` runs, so that it was not Docker's rules that did it all; gives
    /// what `action` does. It is repeated for a while: an Engine tells of a container that runs before the daemon has heard of
    /// it, and until then serves it by its own rules.
    #[track_caller]
    pub fn assert_carried<T>(&self, mut action: impl FnMut() -> T) -> T {
        let mut counted = Counters::default();
        let carried = wait_for(READY, || {
            let before = self.counters();
            let result = action();
            counted = self.counters().since(&before);
            (counted.of_kind("forward") > 0).then_some(result)
        });
        carried.unwrap_or_else(|| panic!("the datapath forwarded nothing; counted meanwhile: {counted}"))
    }

    fn print_logs(&self) {
        for (title, path) in [("the Engine", self.engine.log()), ("runtime up", self.runtime_log())] {
            if let Ok(bytes) = fs::read(&path) {
                eprintln!("--- {title}, its last lines\n{}", tail(&String::from_utf8_lossy(&bytes), 40));
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        // Asked nicely, the Engine takes its cgroups along; whatever it leaves, `Remains` removes.
        if let Err(e) = self.engine.finish() {
            eprintln!("the Engine of {}: {e:#}", self.name);
        }
    }
}

#[track_caller]
fn loud<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("{e:#}"),
    }
}
