//! Network namespaces: making them, and doing things inside.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, Background, Done, must};
use crate::sockets;

/// A network namespace, by the file that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// Makes a named namespace with its loopback up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        must(&mut process::command(["ip", "netns", "add", name]))?;
        let ns = Netns::at(Path::new("/run/netns").join(name));
        ns.must(["ip", "link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// The namespace that a file stands for: `/run/netns/NAME`, `/proc/PID/ns/net`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Netns { path: path.into() }
    }

    /// The file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name under /run/netns.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// A program to be started inside. Only the network is another: `ip netns exec` would also hide cgroups and the bpffs.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs a program inside to its end.
    ///
    /// # Panics
    /// When it cannot be started or takes longer than a minute.
    #[track_caller]
    pub fn run(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        match process::run(&mut self.words(words)) {
            Ok(done) => done,
            Err(e) => panic!("{e:#}"),
        }
    }

    /// Starts a program inside that is killed when the result is dropped; its output goes to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn(&self, log: &Path, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Background {
        match Background::start(self.words(words), log) {
            Ok(background) => background,
            Err(e) => panic!("{e:#}"),
        }
    }

    pub(crate) fn must(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        must(&mut self.words(words))
    }

    fn words(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut words = words.into_iter();
        match words.next() {
            Some(program) => {
                let mut command = self.command(program);
                command.args(words);
                command
            }
            None => panic!("a command needs at least a program"),
        }
    }

    /// Does something inside, on a thread of its own: sockets that it opens stay in this namespace.
    ///
    /// # Panics
    /// When the namespace is gone, and when `f` does.
    #[track_caller]
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let enter = || -> Result<()> {
            let file =
                File::open(&self.path).with_context(|| format!("no network namespace {}", self.path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.path.display()))
        };
        let result = std::thread::scope(|scope| scope.spawn(|| enter().map(|()| f())).join());
        match result {
            Ok(Ok(value)) => value,
            Ok(Err(e)) => panic!("{e:#}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Opens a TCP connection from inside; a refused one and one that gets no answer within a second are errors.
    pub fn tcp(&self, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let to = to.into();
        self.within(|| sockets::connect(None, to))
    }

    /// As [`Netns::tcp`], from an address and port of one's own choice.
    pub fn tcp_from(&self, from: SocketAddr, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let to = to.into();
        self.within(|| sockets::connect(Some(from), to))
    }

    /// A UDP socket inside, bound to `from` and connected to `to`; it waits a second for an answer.
    pub fn udp_from(&self, from: SocketAddr, to: impl Into<SocketAddr>) -> std::io::Result<UdpSocket> {
        let to = to.into();
        self.within(|| {
            let socket = sockets::bind_udp(from)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(to)?;
            Ok(socket)
        })
    }

    /// As [`Netns::udp_from`], from a free port.
    pub fn udp(&self, to: impl Into<SocketAddr>) -> std::io::Result<UdpSocket> {
        let to = to.into();
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        self.udp_from(any, to)
    }

    /// Switches a device's checksum, segmentation and receive offloads on or off.
    pub fn set_offloads(&self, device: &str, on: bool) {
        let to = if on { "on" } else { "off" };
        let features = ["tx", "tso", "gso", "gro"].into_iter().flat_map(|f| [f, to]);
        self.run(["ethtool", "-K", device].into_iter().chain(features)).ok();
    }

    /// Sets a device's MTU in bytes.
    pub fn set_mtu(&self, device: &str, mtu: u32) {
        self.run(["ip", "link", "set", device, "mtu", &mtu.to_string()]).ok();
    }

    /// A device's MAC address.
    pub fn mac(&self, device: &str) -> [u8; 6] {
        let text = self.run(["ip", "-o", "link", "show", device]).ok();
        let mac = text.split_whitespace().skip_while(|w| *w != "link/ether").nth(1).unwrap_or_default();
        let bytes: Vec<u8> = mac.split(':').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
        match bytes.try_into() {
            Ok(mac) => mac,
            Err(_) => panic!("{device} has no MAC address: {text}"),
        }
    }
}
