//! Attaching as clsact filters, for kernels without tcx: the filters, and the qdisc that they need.
//!
//! A filter cannot be pinned, and needs not be: it stays until it is removed, and is known by its place and its program's
//! name. The qdisc is made where there is none, and removed by who made it.

use std::collections::BTreeSet;
use std::io::Result;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::hook::Hook;
use super::rtnl::Rtnl;
use super::{Pins, bpf_syscall};

/// Beginning of the pins that mark interfaces whose qdisc is of this datapath's making.
const MARK: &str = "clsact_qdisc";

fn mark(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{MARK}-{ifindex}"))
}

/// The interface that a pin marks, if it is such a mark.
pub fn marked(path: &Path) -> Option<u32> {
    let (name, ifindex) = path.file_name()?.to_str()?.rsplit_once('-')?;
    if name == MARK { ifindex.parse().ok() } else { None }
}

/// Puts a program at a hook, instead of one that is there.
pub fn attach(rtnl: &mut Rtnl, pins: &Pins, ifindex: u32, hook: Hook, program: BorrowedFd<'_>) -> Result<()> {
    let mark = mark(pins, ifindex);
    // Marked before it is there: one that nobody marked would stay for good. Any pin can be the mark, so it is the program's.
    let new_mark = !mark.exists();
    if new_mark {
        bpf_syscall::pin(&mark, program)?;
    }
    match rtnl.add_clsact(ifindex) {
        Ok(true) => {}
        // It is there, of a predecessor or of another tool; or filters will fail, which will be told.
        Ok(false) | Err(_) if new_mark => std::fs::remove_file(&mark)?,
        Ok(false) | Err(_) => {}
    }
    rtnl.set_filter(ifindex, hook.side(), hook.program(), program)
}

/// Whether the filter at a hook is this datapath's: the number of its program.
pub fn attached(rtnl: &mut Rtnl, ifindex: u32, hook: Hook) -> Result<Option<u32>> {
    let found = rtnl.filter(ifindex, hook.side())?;
    Ok(found.filter(|f| f.name == hook.program()).map(|f| f.program))
}

/// Every filter of this datapath that the kernel knows of in this network namespace, whoever put it there.
pub fn all(rtnl: &mut Rtnl) -> Result<BTreeSet<(u32, Hook)>> {
    let mut found = BTreeSet::new();
    for ifindex in rtnl.clsact_interfaces()? {
        for hook in [Hook::UplinkIngress, Hook::UplinkTunnel, Hook::FromEndpoint, Hook::ToEndpoint] {
            if attached(rtnl, ifindex, hook)?.is_some() {
                found.insert((ifindex, hook));
            }
        }
    }
    Ok(found)
}

/// Removes a filter. When it returns, the program no longer runs there.
pub fn detach(rtnl: &mut Rtnl, ifindex: u32, hook: Hook) -> Result<()> {
    match attached(rtnl, ifindex, hook) {
        Ok(Some(_)) => rtnl.remove_filter(ifindex, hook.side()),
        // Gone, perhaps with its interface; or another's.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Removes the qdisc of a marked interface, unless others have put filters there, and the mark.
pub fn remove_qdisc(rtnl: &mut Rtnl, mark: &Path, ifindex: u32) -> Result<()> {
    // An interface that is gone has taken its qdisc along.
    let _ = rtnl.remove_empty_clsact(ifindex);
    std::fs::remove_file(mark)
}
