//! The process that keeps the mount namespace of an unpacked Engine: its root file system is that namespace's root.
//!
//! dockerd may end and start again; the holder stays, and with it the mounts of containers that go on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::engines::Root;

use super::{EngineName, tail};
use crate::netns::Netns;
use crate::process::Background;
use crate::wait::wait_for;

const SCRIPT: &str = include_str!("holder.sh");
/// The file in a lab's folder that names its holder.
pub(crate) const PID_FILE: &str = "holder.pid";
/// How long its mounts may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The holder, while it lives.
#[derive(Debug)]
pub(crate) struct Holder {
    _process: Background,
    inside: Inside,
}

impl Holder {
    /// Starts it in the network namespace `host`; `dir` is the lab's folder, `images` that of the images.
    pub(crate) fn start(engine: EngineName, host: &Netns, root: &Root, dir: &Path, images: &Path) -> Result<Self> {
        let ready = dir.join("holder.ready");
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation=private", "--", "sh", "-c", SCRIPT, "holder"]);
        command.arg(root.path()).args([dir, images, &ready]).arg(if engine.is_podman() { "one" } else { "all" });
        let mut process = Background::start(command, &dir.join("holder.log"))?;
        let pid = process.pid();
        fs::write(dir.join(PID_FILE), pid.to_string()).context("the holder's pid")?;
        let mut ended = None;
        let is_ready = wait_for(LIMIT, || {
            ended = process.ended();
            (ended.is_some() || ready.exists()).then_some(ended.is_none())
        });
        if is_ready != Some(true) {
            let why = ended.map_or("is not ready in time".to_owned(), |s| format!("ended ({s})"));
            bail!("the namespace of the unpacked Engine {why}: {}", tail(&process.output(), 10));
        }
        let mount = namespace(pid, "mnt")?;
        let inside = Inside { pid, mount, host: host.clone() };
        inside.check()?;
        Ok(Holder { _process: process, inside })
    }

    /// The way in.
    pub(crate) fn inside(&self) -> &Inside {
        &self.inside
    }
}

/// The way into a holder's namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    pid: u32,
    mount: (u64, u64),
    host: Netns,
}

impl Inside {
    /// A program of the unpacked root, to be started inside with an environment of its own.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        self.check()?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--net", "--", "/usr/bin/env", "-i"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]).arg(program);
        Ok(command)
    }

    /// Refuses unless the process is the holder still, in the lab's network and in a mount namespace that is not one's own: a
    /// program started anywhere else would be an Engine of the whole machine.
    fn check(&self) -> Result<()> {
        let own = std::process::id();
        let (net, mount) = (namespace(self.pid, "net")?, namespace(self.pid, "mnt")?);
        let host = fs::metadata(self.host.path()).map(|m| (m.dev(), m.ino())).context("the lab's host")?;
        if mount != self.mount || net != host {
            bail!("process {} is not the holder of the unpacked Engine any more", self.pid);
        }
        if mount == namespace(own, "mnt")? || net == namespace(own, "net")? {
            bail!("the holder of the unpacked Engine, process {}, has no namespaces of its own", self.pid);
        }
        Ok(())
    }
}

fn namespace(pid: u32, kind: &str) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/ns/{kind}");
    let meta = fs::metadata(&path).with_context(|| format!("the holder of the unpacked Engine is gone: {path}"))?;
    Ok((meta.dev(), meta.ino()))
}
