//! What the daemon may do: what it needs, and nothing else, from before its first thread on.
//!
//! Capabilities belong to threads, and a thread begins with those of the one that starts it: so they are given up before
//! there are others. The programs that the daemon starts (`iptables-save`, `nft`) have no more than it has.

use std::collections::BTreeMap;

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Descriptors that the daemon asks for: all ports, of two protocols and two families, and its own.
pub(super) const DESCRIPTORS: u64 = 4 * 65_536 + 1_024;

/// The capabilities that are kept, where they are there.
const KEPT: [Capability; 9] = [
    // Maps and programs are made, read and pinned.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    // Programs are attached; netlink, and the firewall's rules.
    Capability::CAP_NET_ADMIN,
    // Containers' network namespaces are entered, a BPF file system that is gone is mounted; CAP_BPF of older kernels.
    Capability::CAP_SYS_ADMIN,
    // A container's namespace is found by its process, which may be another user's or have more capabilities.
    Capability::CAP_SYS_PTRACE,
    // Containers' /etc/hosts belong to other users where those are mapped.
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    // Live publications hold their ports, those under 1024 too.
    Capability::CAP_NET_BIND_SERVICE,
    // iptables of old asks for the rules by a raw socket.
    Capability::CAP_NET_RAW,
];

/// System calls that a daemon which is somebody else's would begin with, and that this one never makes: other processes'
/// memory, the kernel's modules and keys, other users, the clock, namespaces of its own (`clone` is not looked into, which makes them too),
/// and ways around a filter of system calls.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_unshare,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_umount2,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_pidfd_getfd,
    libc::SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
];

/// Gives up what the daemon does not need; before any thread is started. Returns what could not be done, a line each.
pub fn confine() -> Vec<String> {
    let mut problems = Vec::new();
    // A live publication holds its port by a socket, and a range can have thousands. Afterwards no more can be had.
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).is_err()
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    if let Err(e) = give_up_capabilities() {
        problems.push(format!("capabilities that are not needed cannot be given up: {e}"));
    }
    // With it, nothing that is started can gain any.
    if let Err(e) = refuse_calls() {
        problems.push(format!("no filter of system calls: {e}"));
    }
    problems
}

fn give_up_capabilities() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all().difference(&kept) {
            // An older kernel does not know all of them.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = had.intersection(&kept).copied().collect();
    // Kernels before 4.3 have none.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn refuse_calls() -> Result<(), Box<dyn std::error::Error>> {
    let rules: BTreeMap<i64, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    // Sets no_new_privs as well.
    Ok(seccompiler::apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::sched::{CloneFlags, setns, unshare};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    /// What a confined process, and a thread that it starts, can and cannot do; none where all is as it should be.
    fn fault() -> Option<&'static str> {
        let before = caps::read(None, CapSet::Permitted).ok()?;
        if !confine().is_empty() {
            return Some("something could not be given up");
        }
        let looked = std::thread::spawn(move || {
            let has = |set| caps::read(None, set).unwrap_or_default();
            let kept: CapsHashSet = KEPT.into_iter().filter(|c| before.contains(c)).collect();
            match () {
                () if has(CapSet::Effective) != kept || has(CapSet::Permitted) != kept => Some("other capabilities"),
                () if !has(CapSet::Inheritable).is_empty() => Some("inheritable capabilities"),
                () if unshare(CloneFlags::CLONE_NEWUTS) != Err(Errno::EPERM) => Some("it can make namespaces"),
                // SAFETY: asks for nothing that exists.
                () if unsafe { libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0) } != -1 => Some("it has keys"),
                () => None,
            }
        });
        if let Ok(Some(fault)) = looked.join() {
            return Some(fault);
        }
        // Entering a namespace is needed; without rights, nobody can.
        let own = std::fs::File::open("/proc/self/ns/net").ok()?;
        let is_root = nix::unistd::geteuid().is_root();
        (is_root && setns(own, CloneFlags::CLONE_NEWNET).is_err()).then_some("it cannot enter a network namespace")
    }

    #[test]
    fn a_confined_process_and_its_threads_have_what_is_kept_and_no_more() {
        // SAFETY: the C library keeps its allocator usable in the child, and no other lock is taken there.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let fault = fault();
                if let Some(fault) = fault {
                    eprintln!("{fault}");
                }
                // SAFETY: ends this process without the test harness's own end.
                unsafe { libc::_exit(i32::from(fault.is_some())) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    }
}
