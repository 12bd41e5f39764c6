//! An Engine of one's own inside a network namespace: the machine's Docker, or one unpacked from a distribution's packages.

mod holder;
mod podman;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
pub use xtask::engines::Engine as EngineName;

use crate::images;
use crate::netns::Netns;
use crate::process::{self, Background, Done};
use crate::wait::wait_for;
pub(crate) use holder::PID_FILE;
use holder::{Holder, Inside};

/// How long the Engine may take to answer after its start, or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The Engine's command line client for one Engine: the one that came with it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    config: PathBuf,
    inside: Option<Inside>,
    default_network: &'static str,
}

impl Client {
    /// The Engine's address, `unix:///...`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The network of containers that name none.
    pub(crate) fn default_network(&self) -> &'static str {
        self.default_network
    }

    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = match &self.inside {
            None => Command::new("docker"),
            Some(inside) => {
                let mut command = inside.command(format!("DOCKER_CONFIG={}", self.config.display()))?;
                command.arg("docker");
                command
            }
        };
        // A context or a proxy of whoever runs the tests has no say here.
        command.env("DOCKER_CONFIG", &self.config).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.env_remove("DOCKER_API_VERSION").arg("-H").arg(self.address());
        Ok(command)
    }

    pub(crate) fn run(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Done> {
        process::run(self.command()?.args(words))
    }

    pub(crate) fn must(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        process::must(self.command()?.args(words))
    }
}

#[derive(Debug)]
pub(crate) struct Engine {
    name: EngineName,
    host: Netns,
    dir: PathBuf,
    args: Vec<String>,
    process: Option<Background>,
    holder: Option<Holder>,
    programs: Option<PathBuf>,
}

impl Engine {
    /// An Engine that keeps everything under `dir`; `args` go to dockerd as they are.
    pub(crate) fn new(name: EngineName, host: Netns, dir: &Path, args: Vec<String>) -> Result<Self> {
        let (mut holder, mut programs) = (None, None);
        if let Some(root) = name.root(&images::target()?)? {
            holder = Some(Holder::start(name, &host, &root, dir, &images::cache()?)?);
            programs = Some(root.programs());
        }
        Ok(Engine { name, host, dir: dir.to_owned(), args, process: None, holder, programs })
    }

    pub(crate) fn name(&self) -> EngineName {
        self.name
    }

    /// `PATH=...` with the firewall programs first that read what this Engine's write, where they are not the machine's.
    pub(crate) fn path(&self) -> Option<OsString> {
        let mut path = OsString::from("PATH=");
        path.push(self.programs.as_ref()?);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Some(path)
    }

    fn inside(&self) -> Option<&Inside> {
        self.holder.as_ref().map(Holder::inside)
    }

    pub(crate) fn client(&self) -> Client {
        let inside = self.inside().cloned();
        let default_network = if self.name.is_podman() { "podman" } else { "bridge" };
        Client { socket: self.dir.join("docker.sock"), config: self.dir.join("docker-config"), inside, default_network }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("engine.log")
    }

    /// A program beside the Engine, in its network and among its files.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        match self.inside() {
            Some(inside) => inside.command(program),
            None => Ok(self.host.command(program)),
        }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let command = if self.name.is_podman() { self.podman()? } else { self.dockerd()? };
        let mut process = Background::start(command, &self.log())?;
        let client = self.client();
        let mut ended = None;
        let answers = wait_for(LIMIT, || {
            ended = process.ended();
            let up = client.run(["version", "--format", "{{.Server.Version}}"]).is_ok_and(|d| d.success());
            (up || ended.is_some()).then_some(up)
        });
        if answers != Some(true) {
            let why = ended.map_or("does not answer".to_owned(), |s| format!("ended at once ({s})"));
            bail!("the Engine {} {why}; it wrote:\n{}", self.name, tail(&process.output(), 30));
        }
        self.process = Some(process);
        Ok(())
    }

    fn dockerd(&self) -> Result<Command> {
        let mut command = self.command("dockerd")?;
        command
            .arg(format!("--data-root={}", self.dir.join("data").display()))
            .arg(format!("--exec-root={}", self.dir.join("exec").display()))
            .arg(format!("--pidfile={}", self.dir.join("docker.pid").display()))
            .arg(format!("--host={}", self.client().address()))
            .arg("--log-level=warn")
            // systemd knows nothing of this Engine, and some hosts mount version 1 and 2 hierarchies side by side.
            .arg("--exec-opt=native.cgroupdriver=cgroupfs")
            .args(&self.args);
        Ok(command)
    }

    /// Stops it; Docker's containers go on only with `--live-restore`.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match process.terminate(LIMIT) {
            Some(_) => Ok(()),
            None => {
                let wrote = tail(&process.output(), 30);
                bail!("the Engine {} does not end within {LIMIT:?} of SIGTERM; it wrote:\n{wrote}", self.name)
            }
        }
    }

    /// Ends it without a chance to tidy up, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Removes all containers, and ends it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        if self.name.is_podman() {
            self.remove_podmans_containers()?;
            return self.stop();
        }
        let client = self.client();
        // A manager of Swarm starts anew what is removed. One that does not answer is ended with all the rest.
        if self.dir.join("data/swarm").read_dir().is_ok_and(|mut files| files.next().is_some()) {
            let _ = client.run(["swarm", "leave", "--force"])?;
        }
        let all = client.must(["ps", "--all", "--quiet"])?;
        if !all.is_empty() {
            client.must(["rm", "--force", "--volumes"].into_iter().chain(all.split_whitespace()))?;
        }
        self.stop()
    }
}

/// The last lines of a log.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
