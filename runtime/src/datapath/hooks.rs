//! Programs on interfaces: attached once, pinned, replaced in place.
//!
//! On tcx the programs stand *first*: a container's gate must not depend on what others put there, and what they pass
//! goes on to the others. On kernels without tcx (before 6.6) they are clsact filters of priority 1.
//!
//! However an earlier run has attached its programs, it is taken over: what is to be attached in another way now is attached
//! so first, and what stood there goes when that is done. Only XDP goes before it comes, as a device has one mode of it: its
//! program is no gate, and what it drops early is dropped by the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Result as IoResult};
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use tracing::info;

use super::bpf_syscall::{self, Attach};
use super::expedited::Expedited;
use super::hook::{Hook, HookStatus, Options, Role, XdpMode};
use super::load::Loader;
use super::rtnl::{Rtnl, Side, XdpAt};
use super::{DatapathError, Pins, chain, clsact, features, host_hooks, relay_lookup};

/// How long attaching may take without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// About how many programs the kernel is asked at a time whether they stand: some milliseconds.
const ASKED: usize = 512;

/// How often, and how long after the other, a program is attached where the kernel says that it stands already.
const ATTEMPTS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(10);

/// A way to stand on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    Tcx,
    Clsact,
    Xdp(XdpAt),
}

impl Attachment {
    /// [`HookStatus::kind`] of it.
    fn name(self) -> &'static str {
        match self {
            Attachment::Tcx => "tcx",
            Attachment::Clsact => "clsact",
            Attachment::Xdp(XdpAt::Native) => "xdp native",
            Attachment::Xdp(XdpAt::Generic) => "xdp generic",
        }
    }
}

/// A loaded program.
struct Loaded {
    fd: OwnedFd,
    id: u32,
}

type Key = (u32, Hook);

/// Everything attached.
pub struct Attached {
    options: Options,
    tcx: bool,
    programs: BTreeMap<Hook, Loaded>,
    /// Names of the interfaces with what is attached, and how it was attached.
    held: BTreeMap<Key, (String, Attachment)>,
    /// Filters that were there before anything was attached; none once they are dealt with.
    earlier: Option<BTreeSet<Key>>,
    /// What was wanted when everything was last as it should be.
    settled: Option<BTreeMap<u32, Role>>,
    /// The last one that the kernel was asked about by [`Attached::forget_lost`].
    asked: Option<Key>,
}

impl Attached {
    /// Loads every program into the kernel.
    pub fn load(loader: &Loader<'_>, ebpf: &mut Ebpf, options: Options) -> Result<Self, DatapathError> {
        let mut programs = BTreeMap::new();
        for hook in Hook::ON_INTERFACES {
            loader.load(ebpf, hook).map_err(DatapathError::Load)?;
            let loaded = loaded(ebpf, hook).map_err(|e| DatapathError::Load(format!("{hook}: {e}")))?;
            programs.insert(hook, loaded);
        }
        let tcx = features::has_tcx() && !options.force_clsact;
        Ok(Attached { options, tcx, programs, held: BTreeMap::new(), earlier: None, settled: None, asked: None })
    }

    /// See [`super::Datapath::attach`].
    pub fn reconcile(&mut self, pins: &Pins, wanted: &BTreeMap<u32, Role>) -> Vec<DatapathError> {
        let mut errors = Vec::new();
        if self.settled.as_ref() == Some(wanted) {
            return errors;
        }
        let mut rtnl = match Rtnl::open() {
            Ok(rtnl) => rtnl,
            Err(e) => return vec![DatapathError::Unsupported(format!("netlink: {e}"))],
        };
        if self.earlier.is_none() {
            match clsact::all(&mut rtnl) {
                Ok(found) => self.earlier = Some(found),
                Err(e) => return vec![DatapathError::Unsupported(format!("netlink: qdiscs cannot be read: {e}"))],
            }
        }
        let mut hooks = BTreeMap::new();
        for (ifindex, role) in wanted {
            for hook in role.hooks() {
                if let Some(way) = self.attachment(*hook, &role.name) {
                    hooks.insert((*ifindex, *hook), (role.name.clone(), way));
                }
            }
        }
        let missing: Vec<_> = hooks.iter().filter(|(key, _)| !self.held.contains_key(key)).collect();
        let expedited = Expedited::for_programs(missing.len());
        let mut told = Instant::now();
        for (n, (key, (name, way))) in missing.iter().enumerate() {
            // Where grace periods take their time, a host with a thousand containers needs a minute.
            if told.elapsed() >= SILENCE {
                info!("{n} of {} programs attached", missing.len());
                told = Instant::now();
            }
            match self.attach(&mut rtnl, pins, **key, *way) {
                Ok(()) => {
                    self.held.insert(**key, (name.clone(), *way));
                }
                // Containers come and go: an interface that is gone needs no program.
                Err(_) if nix::net::if_::if_nametoindex(name.as_str()).is_err() => {}
                Err(reason) => {
                    errors.push(DatapathError::Attach { hook: key.1, interface: name.clone(), reason });
                }
            }
        }
        drop(expedited);
        self.detach_others(&mut rtnl, pins, &hooks);
        let complete = errors.is_empty() && hooks.keys().all(|key| self.held.contains_key(key));
        self.settled = complete.then(|| wanted.clone());
        errors
    }

    fn detach_others(&mut self, rtnl: &mut Rtnl, pins: &Pins, wanted: &BTreeMap<Key, (String, Attachment)>) {
        let mut filters = self.earlier.replace(BTreeSet::new()).unwrap_or_default();
        self.held.retain(|key, (_, way)| {
            if wanted.contains_key(key) {
                return true;
            }
            if *way == Attachment::Clsact {
                filters.insert(*key);
            }
            false
        });
        for (ifindex, hook) in filters.into_iter().filter(|key| !wanted.contains_key(key)) {
            // An interface that is gone has taken its attachments along.
            let _ = clsact::detach(rtnl, ifindex, hook);
        }
        // Pins, of a predecessor's too: of what is not wanted any more, or whose interface is gone.
        let Ok(entries) = std::fs::read_dir(pins.links()) else {
            return;
        };
        let interfaces: HashSet<u32> = wanted.keys().map(|(i, _)| *i).collect();
        let mut unwanted = Vec::new();
        for path in entries.flatten().map(|e| e.path()) {
            if let Some(ifindex) = clsact::marked(&path) {
                if self.tcx || !interfaces.contains(&ifindex) {
                    let _ = clsact::remove_qdisc(rtnl, &path, ifindex);
                }
            } else if !is_elsewhere(&path) && !hook_of_pin(&path).is_some_and(|key| wanted.contains_key(&key)) {
                unwanted.push(path);
            }
        }
        let _expedited = Expedited::for_programs(unwanted.len());
        for path in unwanted {
            let _ = detach_link(&path);
        }
    }

    /// Attaches a program in one way, then removes what stands there in another.
    fn attach(&self, rtnl: &mut Rtnl, pins: &Pins, key: Key, way: Attachment) -> Result<(), String> {
        let (ifindex, hook) = key;
        let program = self.programs.get(&hook).ok_or("it is not loaded")?.fd.as_fd();
        let path = pin_path(pins, key);
        match way {
            Attachment::Tcx => {
                let at = match hook.side() {
                    Side::Ingress => Attach::TcxIngress,
                    Side::Egress => Attach::TcxEgress,
                };
                attach_link(&path, ifindex, program, || bpf_syscall::create_link(program, ifindex, at, BPF_F_BEFORE))
                    .map_err(|e| e.to_string())?;
                if self.earlier.as_ref().is_some_and(|filters| filters.contains(&key)) {
                    clsact::detach(rtnl, ifindex, hook).map_err(|e| format!("the filter of an earlier run: {e}"))?;
                }
            }
            Attachment::Clsact => {
                clsact::attach(rtnl, pins, ifindex, hook, program).map_err(|e| e.to_string())?;
                if path.exists() {
                    detach_link(&path).map_err(|e| format!("the link of an earlier run: {e}"))?;
                }
            }
            Attachment::Xdp(at) => {
                let stands = rtnl.xdp(Some(ifindex)).map_err(|e| e.to_string())?.get(&ifindex).map(|(at, _)| *at);
                if path.exists() && stands != Some(at) {
                    detach_link(&path).map_err(|e| format!("the link of an earlier run: {e}"))?;
                }
                let flags = match at {
                    XdpAt::Native => XDP_FLAGS_DRV_MODE,
                    XdpAt::Generic => XDP_FLAGS_SKB_MODE,
                };
                attach_link(&path, ifindex, program, || bpf_syscall::create_link(program, ifindex, Attach::Xdp, flags))
                    .map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// How a program is to be attached; none where it is not.
    fn attachment(&self, hook: Hook, interface: &str) -> Option<Attachment> {
        if hook != Hook::UplinkXdp {
            return Some(if self.tcx { Attachment::Tcx } else { Attachment::Clsact });
        }
        match self.options.xdp {
            XdpMode::Off => None,
            XdpMode::Native => Some(Attachment::Xdp(XdpAt::Native)),
            XdpMode::Generic => Some(Attachment::Xdp(XdpAt::Generic)),
            XdpMode::Auto => is_fast_with_xdp(interface).then_some(Attachment::Xdp(XdpAt::Native)),
        }
    }

    /// See [`super::Datapath::redirects_by_driver`].
    pub fn has_native_xdp(&self) -> bool {
        self.held.values().any(|(_, way)| *way == Attachment::Xdp(XdpAt::Native))
    }

    /// See [`super::Datapath::attachment`].
    pub fn kind(&self) -> &'static str {
        if self.tcx { "tcx" } else { "clsact" }
    }

    /// What the kernel says is attached of what was attached here, and where it says that nothing is, a line for each.
    pub fn status(&self) -> (Vec<HookStatus>, Vec<String>) {
        let (mut rows, mut lost) = (Vec::new(), Vec::new());
        let found = self.ask_kernel(self.held.iter());
        for ((ifindex, hook), (name, _)) in &self.held {
            let way = match &found {
                Ok(found) => found.get(&(*ifindex, *hook)).copied(),
                Err(_) => None,
            };
            match way {
                Some(way) => rows.push(HookStatus {
                    interface: name.clone(),
                    ifindex: *ifindex,
                    hook: *hook,
                    kind: way.name().to_owned(),
                }),
                None if found.is_ok() => lost.push(not_attached(*hook, name)),
                None => {}
            }
        }
        if let Err(e) = found {
            lost.push(format!("what is attached to interfaces cannot be read: {e}"));
        }
        (rows, lost)
    }

    /// Forgets what somebody has taken away, so that it is attached anew; a line for each. All pins are looked for, and the
    /// kernel is asked about [`ASKED`] programs more each time: all of them are asked about within seconds.
    pub fn forget_lost(&mut self, pins: &Pins) -> Vec<String> {
        let entries = std::fs::read_dir(pins.links()).into_iter().flatten().flatten();
        let pinned: HashSet<OsString> = entries.map(|e| e.file_name()).collect();
        let is_pinned = |key: &Key| pinned.contains(OsStr::new(&pin_name(*key)));
        let unpinned = self.held.iter().filter(|(key, (_, way))| *way != Attachment::Clsact && !is_pinned(key));
        let mut lost: BTreeSet<Key> = unpinned.map(|(key, _)| *key).collect();
        let after = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = self.held.range((after, Bound::Unbounded)).take(ASKED).collect();
        // What cannot be asked is not known to be gone.
        if let Ok(found) = self.ask_kernel(next.iter().copied()) {
            lost.extend(next.iter().map(|(key, _)| **key).filter(|key| !found.contains_key(key)));
        }
        self.asked = if next.len() < ASKED { None } else { next.last().map(|(key, _)| **key) };
        let mut lines = Vec::new();
        for key in lost {
            let Some((name, _)) = self.held.remove(&key) else { continue };
            self.settled = None;
            // An interface that is gone has taken its programs along.
            if nix::net::if_::if_nametoindex(name.as_str()).is_ok_and(|ifindex| ifindex == key.0) {
                lines.push(not_attached(key.1, &name));
            }
        }
        lines
    }

    /// Where the kernel has these programs of those that were attached here, and how.
    fn ask_kernel<'a>(
        &self,
        held: impl Iterator<Item = (&'a Key, &'a (String, Attachment))> + Clone,
    ) -> IoResult<BTreeMap<Key, Attachment>> {
        let mut rtnl = Rtnl::open()?;
        let with_xdp = held.clone().any(|((_, hook), _)| *hook == Hook::UplinkXdp);
        let xdp = if with_xdp { rtnl.xdp(None)? } else { BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (key, (_, way)) in held {
            let (ifindex, hook) = *key;
            let Some(program) = self.programs.get(&hook).map(|p| p.id) else { continue };
            let stands = match way {
                Attachment::Xdp(_) => {
                    xdp.get(&ifindex).filter(|(_, id)| *id == program).map(|(at, _)| Attachment::Xdp(*at))
                }
                Attachment::Tcx => {
                    let at = if hook.side() == Side::Ingress { Attach::TcxIngress } else { Attach::TcxEgress };
                    // An interface that is gone has none.
                    let programs = bpf_syscall::programs_at(ifindex, at as u32).unwrap_or_default();
                    programs.contains(&program).then_some(Attachment::Tcx)
                }
                Attachment::Clsact => {
                    let filter = clsact::attached(&mut rtnl, ifindex, hook).unwrap_or_default();
                    filter.is_some_and(|id| id == program).then_some(Attachment::Clsact)
                }
            };
            found.extend(stands.map(|way| (*key, way)));
        }
        Ok(found)
    }
}

/// `BPF_F_BEFORE` of the kernel's uapi: before all others, where none is named.
const BPF_F_BEFORE: u32 = 1 << 3;
/// `XDP_FLAGS_SKB_MODE` of the kernel's uapi.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE` of the kernel's uapi.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

fn loaded(ebpf: &Ebpf, hook: Hook) -> Result<Loaded, String> {
    let fd = match ebpf.program(hook.program()) {
        Some(Program::SchedClassifier(p)) => p.fd(),
        Some(Program::Xdp(p)) => p.fd(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let fd = fd.map_err(|e| chain(&e))?.as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let id = bpf_syscall::program_id(fd.as_fd()).map_err(|e| e.to_string())?;
    Ok(Loaded { fd, id })
}

/// Physical devices whose drivers run XDP before they build packets. Everything virtual has built them already.
fn is_fast_with_xdp(name: &str) -> bool {
    const DRIVERS: &[&str] =
        &["mlx5_core", "mlx4_en", "i40e", "ice", "ixgbe", "igb", "igc", "bnxt_en", "ena", "nfp", "qede"];
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    driver
        .ok()
        .and_then(|d| d.file_name().map(|f| f.to_string_lossy().into_owned()))
        .is_some_and(|d| DRIVERS.contains(&d.as_str()))
}

/// Puts a program into the pinned link of a predecessor, or makes a link and pins it.
fn attach_link(
    path: &Path,
    ifindex: u32,
    program: BorrowedFd<'_>,
    create: impl Fn() -> IoResult<OwnedFd>,
) -> IoResult<()> {
    if path.exists() {
        // Another interface may have the index of one that is gone.
        let stands = bpf_syscall::pinned_link(path).is_ok_and(|link| link.is_some_and(|l| l.ifindex == ifindex));
        if stands && bpf_syscall::update_pinned_link(path, program).is_ok() {
            return Ok(());
        }
        std::fs::remove_file(path)?;
    }
    let mut attempts = ATTEMPTS;
    let link = loop {
        attempts -= 1;
        match create() {
            // Of a pin that somebody has just removed: the kernel lets go of its link some moments later.
            Err(e) if e.kind() == ErrorKind::AlreadyExists && attempts > 0 => std::thread::sleep(MOMENT),
            created => break created?,
        }
    };
    // The pin holds it: this process's own descriptor is closed without detaching anything.
    bpf_syscall::pin(path, link.as_fd())
}

fn not_attached(hook: Hook, interface: &str) -> String {
    format!("{hook} is not attached to {interface} any more")
}

fn pin_name((ifindex, hook): Key) -> String {
    format!("{}-{ifindex}", hook.program())
}

fn pin_path(pins: &Pins, key: Key) -> PathBuf {
    pins.links().join(pin_name(key))
}

/// Detaches the link of a pin, and removes the pin. When it returns, the program no longer runs there.
pub(super) fn detach_link(path: &Path) -> IoResult<()> {
    // Removing the last reference to a link alone would detach it some moments later.
    bpf_syscall::detach_pinned_link(path)?;
    std::fs::remove_file(path)
}

/// Whether a pin is of a program that is on no interface.
pub(super) fn is_elsewhere(path: &Path) -> bool {
    host_hooks::is_pin(path) || relay_lookup::is_pin(path)
}

pub(super) fn hook_of_pin(path: &Path) -> Option<Key> {
    let (program, ifindex) = path.file_name()?.to_str()?.rsplit_once('-')?;
    let hook = Hook::ON_INTERFACES.into_iter().find(|h| h.program() == program)?;
    Some((ifindex.parse().ok()?, hook))
}
