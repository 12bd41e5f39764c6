//! A machine in QEMU, without hardware help (TCG): what it prints on its first serial line is what comes back.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::tools::Tools;

/// The line with which a machine ends: its script's exit status follows.
pub const STATUS: &str = "vm: status ";

/// What a machine is made of.
pub struct Machine<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// The archive of its first root file system.
    pub initrd: &'a Path,
    /// MiB.
    pub memory: u32,
    /// Files that are its disks `vda`, `vdb`, ...; what is written to them is forgotten.
    pub disks: &'a [PathBuf],
    /// How long it may take.
    pub limit: Duration,
    /// Where all that it prints is kept.
    pub log: &'a Path,
}

impl Machine<'_> {
    fn command(&self, tools: &Tools) -> Command {
        // It dies with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(tools.words("usr/bin/qemu-system-x86_64"));
        command.env("QEMU_MODULE_DIR", tools.libraries().join("qemu"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(tools.file(folder));
        }
        // One processor: of two, emulated, each waits for the other at every lock and grace period, and takes a third more time.
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", &self.memory.to_string()]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initrd);
        for disk in self.disks {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
        }
        // Two ends of one cable: a real driver, which virtual Ethernet has not.
        command.args(["-netdev", "hubport,id=n0,hubid=0", "-netdev", "hubport,id=n1,hubid=0"]);
        for end in ["n0", "n1"] {
            command.args(["-device", &format!("virtio-net-pci,netdev={end},romfile=")]);
        }
        // An emulated timer comes late where this machine is busy: a kernel that checks for that panics before it has a console.
        // Grace periods end at once, without a walk of the kernel's own process that is as long as all others' work.
        let words = "console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check net.ifnames=0 mitigations=off apparmor=0 \
                     rcupdate.rcu_expedited=1";
        command.arg("-append").arg(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; gives its script's exit status. `each` sees every line that it prints.
    pub fn run(&self, tools: &Tools, mut each: impl FnMut(&str)) -> Result<i32> {
        let mut command = self.command(tools);
        let mut log = File::create(self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut emulator = Running(command.spawn().context("cannot run setpriv (package util-linux)")?);
        let said = emulator.0.stderr.take().context("the emulator has no stderr")?;
        let said = std::thread::spawn(move || std::io::read_to_string(said).unwrap_or_default());
        let console = emulator.0.stdout.take().context("the emulator has no console")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });

        let end = Instant::now() + self.limit;
        let mut status = None;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}").with_context(|| format!("cannot write {}", self.log.display()))?;
                    match line.strip_prefix(STATUS) {
                        Some(text) => status = text.parse().ok(),
                        None => each(&line),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the machine was not done within {:?}: see {}", self.limit, self.log.display());
                }
            }
        }
        let ended = emulator.0.wait().context("cannot wait for the emulator")?;
        if !ended.success() {
            let said = said.join().unwrap_or_default();
            bail!("the emulator failed ({ended}): {}", said.lines().last().unwrap_or("it said nothing"));
        }
        status.with_context(|| format!("the machine ended before its script did: see {}", self.log.display()))
    }
}

/// An emulator; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
