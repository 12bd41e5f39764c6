//! The programs at the hooks of the host's own sockets: on the root of the cgroup2 hierarchy, gated on one network namespace.
//!
//! Without them everything else works: what is missing is told as a problem, and `up` goes on.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use nix::libc;

use super::hook::{Hook, HookStatus};
use super::load::Loader;
use super::{Pins, bpf_syscall, chain, features, map_error, take};
use crate::failpoint;

/// End of the links' pins: `host_connect4-cgroup`.
const PIN_END: &str = "-cgroup";

/// What a machine without them lacks, for messages.
const LACKING: &str = "processes of the host reach published ports only as Docker itself serves them";

/// All of them, in the order of attaching: who can be dialled is shown as dialled from the beginning.
const HOOKS: [Hook; 8] = [
    Hook::HostGetpeername4,
    Hook::HostGetpeername6,
    Hook::HostRecvmsg4,
    Hook::HostRecvmsg6,
    Hook::HostSendmsg4,
    Hook::HostSendmsg6,
    Hook::HostConnect4,
    Hook::HostConnect6,
];

/// What became of the programs.
pub(super) enum HostHooks {
    /// Loaded, and to be attached with everything else.
    Loaded(Array<MapData, u64>),
    /// Attached to this cgroup, with their numbers in the kernel.
    Attached(PathBuf, Vec<(Hook, u32)>, Array<MapData, u64>),
    /// Not there, and why.
    Missing(String),
}

impl HostHooks {
    /// Loads the programs into the kernel.
    pub fn load(loader: &Loader<'_>, ebpf: &mut Ebpf) -> Self {
        match load(loader, ebpf) {
            Ok(netns) => HostHooks::Loaded(netns),
            Err(reason) => HostHooks::missing(loader.pins, &reason),
        }
    }

    /// Without any of them: some alone would send sockets where others do not know them.
    fn missing(pins: &Pins, reason: &str) -> Self {
        for hook in HOOKS {
            let _ = remove(&pin_path(pins, hook));
        }
        HostHooks::Missing(format!("{reason}; {LACKING}"))
    }

    /// Attaches the programs, or puts them in the place of a predecessor's. Does it once.
    pub fn attach(&mut self, ebpf: &mut Ebpf, pins: &Pins) {
        *self = match std::mem::replace(self, HostHooks::Missing(String::new())) {
            HostHooks::Loaded(mut netns) => match attach(&mut netns, ebpf, pins) {
                Ok((cgroup, programs)) => HostHooks::Attached(cgroup, programs, netns),
                Err(reason) => HostHooks::missing(pins, &reason),
            },
            as_it_was => as_it_was,
        };
    }

    /// Where some of them are gone: all of them are to be attached anew. A line for each that is gone.
    pub fn forget_lost(&mut self, pins: &Pins) -> Vec<String> {
        let (_, mut lost) = self.status();
        match std::mem::replace(self, HostHooks::Missing(String::new())) {
            HostHooks::Attached(path, programs, netns) => {
                let unpinned = programs.iter().map(|(hook, _)| pin_path(pins, *hook)).filter(|pin| !pin.exists());
                // With the pin goes the link: that is one line.
                if lost.is_empty() {
                    lost.extend(unpinned.map(|pin| format!("{} was gone", pin.display())));
                }
                *self = match lost.is_empty() {
                    true => HostHooks::Attached(path, programs, netns),
                    false => HostHooks::Loaded(netns),
                };
            }
            as_it_was => *self = as_it_was,
        }
        lost
    }

    /// What is missing, in one line.
    pub fn problem(&self) -> Option<&str> {
        match self {
            HostHooks::Missing(reason) => Some(reason),
            _ => None,
        }
    }

    /// What the kernel says is attached, and a line for each that is not any more.
    pub fn status(&self) -> (Vec<HookStatus>, Vec<String>) {
        let HostHooks::Attached(path, programs, _) = self else {
            return Default::default();
        };
        let cgroup = match File::open(path) {
            Ok(cgroup) => cgroup,
            Err(e) => return (Vec::new(), vec![format!("{}: {e}", path.display())]),
        };
        let (mut rows, mut lost) = (Vec::new(), Vec::new());
        for (hook, id) in programs {
            match bpf_syscall::programs_at(cgroup.as_raw_fd() as u32, attach_type(*hook)) {
                Ok(found) if found.contains(id) => rows.push(HookStatus {
                    interface: path.display().to_string(),
                    ifindex: 0,
                    hook: *hook,
                    kind: "cgroup".to_owned(),
                }),
                Ok(_) => lost.push(format!("{hook} is not attached to {} any more", path.display())),
                Err(e) => lost.push(format!("what is attached to {} cannot be read: {e}", path.display())),
            }
        }
        (rows, lost)
    }
}

/// `enum bpf_attach_type` of the kernel's uapi.
fn attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::HostConnect4 => 10,
        Hook::HostConnect6 => 11,
        Hook::HostSendmsg4 => 14,
        Hook::HostSendmsg6 => 15,
        Hook::HostRecvmsg4 => 19,
        Hook::HostRecvmsg6 => 20,
        Hook::HostGetpeername4 => 29,
        Hook::HostGetpeername6 => 30,
        Hook::RelayLookup
        | Hook::UplinkIngress
        | Hook::UplinkTunnel
        | Hook::FromEndpoint
        | Hook::ToEndpoint
        | Hook::UplinkXdp => u32::MAX,
    }
}

fn load(loader: &Loader<'_>, ebpf: &mut Ebpf) -> Result<Array<MapData, u64>, String> {
    for hook in HOOKS {
        loader.load(ebpf, hook)?;
    }
    let netns = take(ebpf, "HOST_NETNS").map_err(|e| e.to_string())?;
    Array::try_from(netns).map_err(|e| map_error("HOST_NETNS", &e).to_string())
}

/// Whether a pin is of a program on a cgroup.
pub(super) fn is_pin(path: &Path) -> bool {
    path.file_name().and_then(|f| f.to_str()).is_some_and(|f| f.ends_with(PIN_END))
}

fn pin_path(pins: &Pins, hook: Hook) -> PathBuf {
    pins.links().join(format!("{hook}{PIN_END}"))
}

fn attach(
    netns: &mut Array<MapData, u64>,
    ebpf: &mut Ebpf,
    pins: &Pins,
) -> Result<(PathBuf, Vec<(Hook, u32)>), String> {
    let mounts = std::fs::read_to_string("/proc/mounts").map_err(|e| format!("/proc/mounts: {e}"))?;
    let path = cgroup2(&mounts)
        .ok_or("no cgroup2 hierarchy is mounted: mount one with \"mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified\"")?;
    let cgroup = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    // These hooks are the whole machine's: before they run they must know whom they are for.
    let cookie = own_netns_cookie().map_err(|e| {
        format!(
            "this network namespace has no cookie ({e}): SO_NETNS_COOKIE needs Linux 5.14, here is {}",
            features::kernel_release()
        )
    })?;
    netns.set(0, cookie, 0).map_err(|e| map_error("HOST_NETNS", &e).to_string())?;
    let mut programs = Vec::new();
    for hook in HOOKS {
        let id = attach_one(program(ebpf, hook)?, &pin_path(pins, hook), &cgroup)
            .map_err(|e| format!("{hook}: {}", chain(&*e)))?;
        programs.push((hook, id));
    }
    Ok((path, programs))
}

/// Returns the program's number in the kernel.
fn attach_one(p: &mut CgroupSockAddr, path: &Path, cgroup: &File) -> Result<u32, Box<dyn std::error::Error>> {
    let program = bpf_syscall::program_id(p.fd()?.as_fd())?;
    if path.exists() {
        if bpf_syscall::update_pinned_link(path, p.fd()?.as_fd()).is_ok() {
            return Ok(program);
        }
        // Not a link that can be updated: of somebody else's making.
        remove(path)?;
    }
    // As a link it stands beside those of others, whatever the mode says; the kernel refuses any other mode for links.
    failpoint::step();
    let id = p.attach(cgroup, CgroupAttachMode::Single)?;
    let link: FdLink = p.take_link(id)?.try_into()?;
    failpoint::step();
    link.pin(path)?;
    Ok(program)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        bpf_syscall::detach_pinned_link(path)?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Where the cgroup2 hierarchy is mounted: /sys/fs/cgroup, or below it where version 1 is in use as well.
fn cgroup2(mounts: &str) -> Option<PathBuf> {
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let point = fields.find_map(|mut f| {
        let point = f.nth(1)?;
        (f.next()? == "cgroup2").then_some(point)
    })?;
    // Blanks in paths are written as in C.
    Some(PathBuf::from(point.replace("\\040", " ")))
}

/// The kernel's number of the network namespace that this process is in: never given out twice.
fn own_netns_cookie() -> std::io::Result<u64> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind(("::1", 0)))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the number.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(std::io::Error::last_os_error()) }
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut CgroupSockAddr, String> {
    ebpf.program_mut(hook.program())
        .ok_or_else(|| format!("{hook} is not in the object"))?
        .try_into()
        .map_err(|e: ProgramError| format!("{hook}: {}", chain(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_alone_and_beside_version_1() {
        let unified = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup2(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      none /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }

    #[test]
    fn a_namespace_has_one_cookie() {
        let own = own_netns_cookie().unwrap();
        assert_ne!(own, 0);
        assert_eq!(own_netns_cookie().unwrap(), own);
    }
}
