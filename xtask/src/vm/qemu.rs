//! A machine in QEMU, without hardware help (TCG): what it prints on its first serial line is what comes back.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::store::Store;
use super::tool::Progress;

/// The line with which a machine ends: its script's exit status follows.
pub const STATUS: &str = "vm: status ";

/// The emulator, unpacked, with the busybox that first root file systems are made of.
pub struct Emulator {
    root: PathBuf,
}

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
    /// After the usual words on the kernel's command line.
    pub append: &'a str,
    /// How long it may take.
    pub limit: Duration,
    /// Where all that it prints is kept.
    pub log: &'a Path,
}

impl Emulator {
    /// Downloads and unpacks it where it is not there yet.
    pub fn get(store: &Store, progress: &Progress) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!(
                "the kernels that are tried are for x86_64, and so must this machine be: it is {}",
                std::env::consts::ARCH
            );
        }
        let root = store.packages("tools", &["qemu-system-x86", "busybox-static"], progress)?;
        Ok(Self { root })
    }

    /// A busybox that needs no library.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("usr/bin/busybox")
    }

    fn command(&self) -> Command {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        // It dies with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        // With the libraries that it came with, whatever this machine has.
        command.arg(self.root.join("usr/lib64/ld-linux-x86-64.so.2")).arg("--library-path");
        command.arg(format!("{0}:{0}/pulseaudio", libraries.display()));
        command.arg(self.root.join("usr/bin/qemu-system-x86_64"));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root.join(folder));
        }
        command
    }

    /// Runs a machine to its end; gives its script's exit status. `each` sees every line that it prints.
    pub fn run(&self, machine: &Machine<'_>, mut each: impl FnMut(&str)) -> Result<i32> {
        let mut command = self.command();
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", &machine.memory.to_string()]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(machine.initrd);
        for disk in machine.disks {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
        }
        // Two ends of one cable: real drivers, which virtual Ethernet is not.
        command.args(["-netdev", "hubport,id=n0,hubid=0", "-netdev", "hubport,id=n1,hubid=0"]);
        for end in ["n0", "n1"] {
            command.args(["-device", &format!("virtio-net-pci,netdev={end},romfile=")]);
        }
        let words = "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off apparmor=0";
        command.arg("-append").arg(format!("{words} {}", machine.append));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut log = File::create(machine.log).with_context(|| format!("cannot write {}", machine.log.display()))?;
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

        let end = Instant::now() + machine.limit;
        let mut status = None;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}").with_context(|| format!("cannot write {}", machine.log.display()))?;
                    match line.strip_prefix(STATUS) {
                        Some(text) => status = text.parse().ok(),
                        None => each(&line),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the machine was not done within {:?}: see {}", machine.limit, machine.log.display());
                }
            }
        }
        let ended = emulator.0.wait().context("cannot wait for the emulator")?;
        if !ended.success() {
            let said = said.join().unwrap_or_default();
            bail!("the emulator failed ({ended}): {}", said.lines().last().unwrap_or("it said nothing"));
        }
        status.with_context(|| format!("the machine ended before its script did: see {}", machine.log.display()))
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
