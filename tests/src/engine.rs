//! A Docker Engine of one's own inside a network namespace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::netns::Netns;
use crate::process::{self, Background, Done};
use crate::wait::wait_for;

/// How long the Engine may take to answer after its start, or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The Engine's command line client for one Engine.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    config: PathBuf,
}

impl Client {
    /// The Engine's address, `unix:///...`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("docker");
        // A context or a proxy of whoever runs the tests has no say here.
        command.env("DOCKER_CONFIG", &self.config).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.arg("-H").arg(self.address());
        command
    }

    pub(crate) fn run(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Done> {
        process::run(self.command().args(words))
    }

    pub(crate) fn must(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        process::must(self.command().args(words))
    }
}

#[derive(Debug)]
pub(crate) struct Engine {
    host: Netns,
    dir: PathBuf,
    args: Vec<String>,
    process: Option<Background>,
}

impl Engine {
    /// An Engine that keeps everything under `dir`; `args` go to dockerd as they are.
    pub(crate) fn new(host: Netns, dir: &Path, args: Vec<String>) -> Self {
        Engine { host, dir: dir.to_owned(), args, process: None }
    }

    pub(crate) fn client(&self) -> Client {
        Client { socket: self.dir.join("docker.sock"), config: self.dir.join("docker-config") }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("dockerd.log")
    }

    /// Starts dockerd and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = self.host.command("dockerd");
        command
            .arg(format!("--data-root={}", self.dir.join("data").display()))
            .arg(format!("--exec-root={}", self.dir.join("exec").display()))
            .arg(format!("--pidfile={}", self.dir.join("docker.pid").display()))
            .arg(format!("--host={}", self.client().address()))
            .arg("--log-level=warn")
            // systemd knows nothing of this Engine, and some hosts mount version 1 and 2 hierarchies side by side.
            .arg("--exec-opt=native.cgroupdriver=cgroupfs")
            .args(&self.args);
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
            bail!("dockerd {why}; it wrote:\n{}", tail(&process.output(), 30));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops dockerd; containers go on only with `--live-restore`.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match process.terminate(LIMIT) {
            Some(_) => Ok(()),
            None => {
                bail!("dockerd does not end within {LIMIT:?} of SIGTERM; it wrote:\n{}", tail(&process.output(), 30))
            }
        }
    }

    /// Removes all containers, and ends dockerd.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        let client = self.client();
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
