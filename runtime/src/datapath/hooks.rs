//! Programs on hooks: attached once, pinned, replaced in place.
//!
//! On tcx the programs stand *first*: a container's gate must not depend on what others put there, and what they pass
//! goes on to the others. On kernels without tcx (before 6.6) they are clsact filters of priority 1.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::links::{FdLink, Link as _, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::xdp::{XdpLink, XdpMode as AyaXdpMode};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::load::Loader;
use super::{DatapathError, Pins, chain, clsact, features, host_hooks, sys};

/// How long attaching may take without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// Where a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// tc ingress of an uplink.
    UplinkIngress,
    /// tc ingress of a container's host-side interface.
    FromEndpoint,
    /// tc egress of a container's host-side interface.
    ToEndpoint,
    /// XDP of an uplink.
    UplinkXdp,
    /// cgroup connect, IPv4.
    HostConnect4,
    /// cgroup connect, IPv6.
    HostConnect6,
    /// cgroup sendmsg, IPv4.
    HostSendmsg4,
    /// cgroup sendmsg, IPv6.
    HostSendmsg6,
    /// cgroup recvmsg, IPv4.
    HostRecvmsg4,
    /// cgroup recvmsg, IPv6.
    HostRecvmsg6,
    /// cgroup getpeername, IPv4.
    HostGetpeername4,
    /// cgroup getpeername, IPv6.
    HostGetpeername6,
}

impl Hook {
    /// Those on interfaces.
    const ALL: [Hook; 4] = [Hook::UplinkIngress, Hook::FromEndpoint, Hook::ToEndpoint, Hook::UplinkXdp];

    /// Name of the program, and the beginning of its links' pins.
    pub const fn program(self) -> &'static str {
        match self {
            Hook::UplinkIngress => "uplink_ingress",
            Hook::FromEndpoint => "from_endpoint",
            Hook::ToEndpoint => "to_endpoint",
            Hook::UplinkXdp => "uplink_xdp",
            Hook::HostConnect4 => "host_connect4",
            Hook::HostConnect6 => "host_connect6",
            Hook::HostSendmsg4 => "host_sendmsg4",
            Hook::HostSendmsg6 => "host_sendmsg6",
            Hook::HostRecvmsg4 => "host_recvmsg4",
            Hook::HostRecvmsg6 => "host_recvmsg6",
            Hook::HostGetpeername4 => "host_getpeername4",
            Hook::HostGetpeername6 => "host_getpeername6",
        }
    }

    const fn tc_type(self) -> TcAttachType {
        match self {
            Hook::ToEndpoint => TcAttachType::Egress,
            _ => TcAttachType::Ingress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// What an interface is to the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name, for attaching and for messages.
    pub name: String,
    /// Whether outside traffic comes through it; else it is a container's host side.
    pub uplink: bool,
}

/// How XDP is used on uplinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Not at all.
    Off,
    /// In the driver where it pays; never on veth, whose TCP streams it halves.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's generic layer: for tests, and for drivers without support.
    Generic,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// XDP on uplinks.
    pub xdp: XdpMode,
    /// clsact filters even where the kernel has tcx.
    pub force_clsact: bool,
}

/// One attached program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookStatus {
    /// Interface name.
    pub interface: String,
    /// Interface index.
    pub ifindex: u32,
    /// Which program.
    pub hook: Hook,
    /// `tcx`, `clsact`, `xdp native`, `xdp generic`.
    pub kind: String,
}

/// Interface name, and how a program is attached there.
type Held = (String, &'static str);

/// [`HookStatus::kind`] of XDP in the driver.
const XDP_NATIVE: &str = "xdp native";

/// Everything attached.
pub struct Attached {
    options: Options,
    tcx: bool,
    held: BTreeMap<(u32, Hook), Held>,
    /// What was wanted when everything was last as it should be.
    settled: Option<BTreeMap<u32, Role>>,
}

impl Attached {
    /// Loads every program into the kernel.
    pub fn load(loader: &Loader<'_>, ebpf: &mut Ebpf, options: Options) -> Result<Self, DatapathError> {
        for hook in Hook::ALL {
            loader.load(ebpf, hook).map_err(DatapathError::Load)?;
        }
        let tcx = features::has_tcx() && !options.force_clsact;
        Ok(Attached { options, tcx, held: BTreeMap::new(), settled: None })
    }

    /// See [`super::Datapath::attach`].
    pub fn reconcile(&mut self, ebpf: &mut Ebpf, pins: &Pins, wanted: &BTreeMap<u32, Role>) -> Vec<DatapathError> {
        let mut errors = Vec::new();
        if self.settled.as_ref() == Some(wanted) {
            return errors;
        }
        let mut hooks = BTreeMap::new();
        for (ifindex, role) in wanted {
            let list: &[Hook] = match role.uplink {
                true => &[Hook::UplinkIngress, Hook::UplinkXdp],
                // The gate first: nothing gets in while the other is being attached.
                false => &[Hook::ToEndpoint, Hook::FromEndpoint],
            };
            for hook in list {
                if *hook != Hook::UplinkXdp || self.xdp_flags(&role.name).is_some() {
                    hooks.insert((*ifindex, *hook), role.name.clone());
                }
            }
        }
        let missing: Vec<_> = hooks.iter().filter(|(key, _)| !self.held.contains_key(key)).collect();
        let mut told = Instant::now();
        for (n, (key, name)) in missing.iter().enumerate() {
            // The kernel waits for all processors after each: on a host with a thousand containers, that takes a while.
            if told.elapsed() >= SILENCE {
                info!("{n} of {} programs attached", missing.len());
                told = Instant::now();
            }
            match self.attach(ebpf, pins, key.0, key.1, name) {
                Ok(held) => {
                    self.held.insert(**key, held);
                }
                // Containers come and go: an interface that is gone needs no program.
                Err(_) if nix::net::if_::if_nametoindex(name.as_str()).is_err() => {}
                Err(reason) => {
                    errors.push(DatapathError::Attach { hook: key.1, interface: (*name).clone(), reason });
                }
            }
        }
        self.detach_others(pins, &hooks);
        let complete = errors.is_empty() && hooks.keys().all(|key| self.held.contains_key(key));
        self.settled = complete.then(|| wanted.clone());
        errors
    }

    fn detach_others(&mut self, pins: &Pins, wanted: &BTreeMap<(u32, Hook), String>) {
        self.held.retain(|key, _| {
            if wanted.contains_key(key) {
                return true;
            }
            // An interface that is gone has taken its attachments along.
            let _ = detach_by_pin(&pin_path(pins, *key));
            false
        });
        // Pins of a predecessor for what is not wanted any more, or whose interface is gone.
        let Ok(entries) = std::fs::read_dir(pins.links()) else {
            return;
        };
        let interfaces: HashSet<u32> = wanted.keys().map(|(i, _)| *i).collect();
        for entry in entries.flatten() {
            if let Some(ifindex) = clsact::marked(&entry.path()) {
                if !interfaces.contains(&ifindex) {
                    let _ = clsact::remove(&entry.path(), ifindex);
                }
                continue;
            }
            if host_hooks::is_pin(&entry.path()) {
                continue;
            }
            let known = entry.file_name().to_str().and_then(parse_pin).is_some_and(|key| wanted.contains_key(&key));
            if !known {
                let _ = detach_by_pin(&entry.path());
            }
        }
    }

    fn attach(&self, ebpf: &mut Ebpf, pins: &Pins, ifindex: u32, hook: Hook, name: &str) -> Result<Held, String> {
        let path = pin_path(pins, (ifindex, hook));
        if hook == Hook::UplinkXdp {
            let p: &mut Xdp = program(ebpf, hook).map_err(|e| e.to_string())?;
            return self.attach_xdp(p, &path, name);
        }
        let p: &mut SchedClassifier = program(ebpf, hook).map_err(|e| e.to_string())?;
        if self.tcx {
            attach_tcx(p, &path, name, hook).map_err(|e| chain(&*e))?;
            return Ok((name.to_owned(), "tcx"));
        }
        clsact::make(pins, p, ifindex, name).map_err(|e| chain(&*e))?;
        attach_clsact(p, &path, name, hook).map_err(|e| chain(&*e))?;
        Ok((name.to_owned(), "clsact"))
    }

    fn attach_xdp(&self, p: &mut Xdp, path: &Path, name: &str) -> Result<Held, String> {
        let (flags, kind) = self.xdp_flags(name).ok_or("XDP is off")?;
        if path.exists() {
            let adopted = PinnedLink::from_pin(path)
                .map_err(|e| chain(&e))
                .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)).map_err(|e| chain(&e)))
                .and_then(|link| p.attach_to_link(link).map_err(|e| chain(&e)));
            if let Ok(id) = adopted {
                p.take_link(id).map_err(|e| chain(&e))?;
                return Ok((name.to_owned(), kind));
            }
            std::fs::remove_file(path).map_err(|e| e.to_string())?;
        }
        let id = p.attach(name, flags).map_err(|e| chain(&e))?;
        let link: FdLink = p.take_link(id).map_err(|e| chain(&e))?.try_into().map_err(|e| chain(&e))?;
        link.pin(path).map_err(|e| chain(&e))?;
        Ok((name.to_owned(), kind))
    }

    fn xdp_flags(&self, name: &str) -> Option<(AyaXdpMode, &'static str)> {
        match self.options.xdp {
            XdpMode::Off => None,
            XdpMode::Native => Some((AyaXdpMode::Driver, XDP_NATIVE)),
            XdpMode::Generic => Some((AyaXdpMode::Skb, "xdp generic")),
            XdpMode::Auto => is_fast_with_xdp(name).then_some((AyaXdpMode::Driver, XDP_NATIVE)),
        }
    }

    /// See [`super::Datapath::redirects_by_driver`].
    pub fn has_native_xdp(&self) -> bool {
        self.held.values().any(|(_, kind)| *kind == XDP_NATIVE)
    }

    /// See [`super::Datapath::attachment`].
    pub fn kind(&self) -> &'static str {
        if self.tcx { "tcx" } else { "clsact" }
    }

    /// See [`super::Datapath::attached`].
    pub fn status(&self) -> Vec<HookStatus> {
        self.held
            .iter()
            .map(|((ifindex, hook), (name, kind))| HookStatus {
                interface: name.clone(),
                ifindex: *ifindex,
                hook: *hook,
                kind: (*kind).to_owned(),
            })
            .collect()
    }
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

fn attach_tcx(p: &mut SchedClassifier, path: &Path, name: &str, hook: Hook) -> Result<(), Box<dyn std::error::Error>> {
    if path.exists() {
        let adopted = PinnedLink::from_pin(path)
            .map_err(Box::<dyn std::error::Error>::from)
            .and_then(|pinned| Ok(SchedClassifierLink::try_from(FdLink::from(pinned))?))
            .and_then(|link| Ok(p.attach_to_link(link)?));
        if let Ok(id) = adopted {
            // The pin holds the link; this process's own descriptor of it is closed without detaching anything.
            let _link: FdLink = p.take_link(id)?.try_into()?;
            return Ok(());
        }
        // Of an interface that is gone, whose index another one has now.
        std::fs::remove_file(path)?;
    }
    let id = p.attach_with_options(name, hook.tc_type(), TcAttachOptions::TcxOrder(LinkOrder::first()))?;
    let link: FdLink = p.take_link(id)?.try_into()?;
    link.pin(path)?;
    Ok(())
}

/// Replaces the filter of a predecessor in place, or adds one. Its program is pinned as a mark of where it stands.
fn attach_clsact(
    p: &mut SchedClassifier,
    path: &Path,
    name: &str,
    hook: Hook,
) -> Result<(), Box<dyn std::error::Error>> {
    let replaced = p.attach_to_link(filter(name, hook)?);
    let id = match replaced {
        Ok(id) => id,
        Err(_) => p.attach_with_options(
            name,
            hook.tc_type(),
            TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None }),
        )?,
    };
    // Dropping the link would remove the filter, which is to outlive this process.
    std::mem::forget(p.take_link(id)?);
    let _ = std::fs::remove_file(path);
    p.pin(path)?;
    Ok(())
}

/// Before all filters that others add without saying where.
const PRIORITY: u16 = 1;
/// One that no other tool is likely to use.
const HANDLE: TcHandle = TcHandle::new(0x5254, 1);

fn filter(name: &str, hook: Hook) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, hook.tc_type(), PRIORITY, HANDLE, None)
}

/// Removes an attachment by its pin: whatever kind it is, whoever made it. When it returns, the program no longer runs.
pub(super) fn detach_by_pin(path: &Path) -> std::io::Result<()> {
    if let Some(ifindex) = clsact::marked(path) {
        return clsact::remove(path, ifindex);
    }
    // Removing the last reference to a link alone would detach it some moments later.
    if !sys::detach_pinned_link(path)?
        && let Some((ifindex, hook)) = path.file_name().and_then(|f| f.to_str()).and_then(parse_pin)
        && let Ok(name) = nix::net::if_::if_indextoname(ifindex)
        && let Ok(filter) = filter(&name.to_string_lossy(), hook)
    {
        // It may be gone with its interface.
        let _ = filter.detach();
    }
    std::fs::remove_file(path)
}

/// In which order attachments are removed: what comes from outside goes back to the host's own rules first, so that they
/// see conversations from the client's side, and the host's own sockets with it; see [`super::remove_everything`].
pub(super) fn is_uplink_pin(path: &Path) -> bool {
    if host_hooks::is_pin(path) {
        return true;
    }
    let hook = path.file_name().and_then(|f| f.to_str()).and_then(parse_pin).map(|(_, hook)| hook);
    matches!(hook, Some(Hook::UplinkIngress | Hook::UplinkXdp))
}

fn pin_path(pins: &Pins, (ifindex, hook): (u32, Hook)) -> PathBuf {
    pins.links().join(format!("{}-{ifindex}", hook.program()))
}

fn parse_pin(file: &str) -> Option<(u32, Hook)> {
    let (program, ifindex) = file.rsplit_once('-')?;
    let hook = Hook::ALL.into_iter().find(|h| h.program() == program)?;
    Some((ifindex.parse().ok()?, hook))
}

fn program<'e, P>(ebpf: &'e mut Ebpf, hook: Hook) -> Result<&'e mut P, DatapathError>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(hook.program())
        .ok_or_else(|| DatapathError::Load(format!("{hook} is not in the object")))?
        .try_into()
        .map_err(|e: ProgramError| DatapathError::Load(format!("{hook}: {}", chain(&e))))
}
