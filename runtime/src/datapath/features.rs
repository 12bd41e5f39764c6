//! What the kernel must offer and this process be allowed, asked before anything is attached.
//!
//! Asked of the kernel itself, by programs of one call that never run: distributions carry features back to older versions,
//! and leave features of newer ones out.

use super::probe::{self, Kind};
use super::{DatapathError, Pins, bpf_syscall};

/// A helper that the programs call, in a kind of program.
struct Needed {
    kind: Kind,
    helper: i32,
    name: &'static str,
    since: &'static str,
}

const fn needed(kind: Kind, helper: i32, name: &'static str, since: &'static str) -> Needed {
    Needed { kind, helper, name, since }
}

/// Those that came last first: they are what an old kernel lacks. Older ones than these every kernel has that has these.
const NEEDED: &[Needed] = &[
    needed(Kind::Classifier, 160, "bpf_ktime_get_coarse_ns", "5.11"),
    needed(Kind::Xdp, 160, "bpf_ktime_get_coarse_ns", "5.11"),
    needed(Kind::Classifier, 155, "bpf_redirect_peer", "5.10"),
    needed(Kind::Classifier, 152, "bpf_redirect_neigh", "5.10"),
    needed(Kind::Classifier, 131, "bpf_ringbuf_reserve", "5.8"),
    needed(Kind::Classifier, 99, "bpf_skc_lookup_tcp", "5.2"),
    needed(Kind::Classifier, 69, "bpf_fib_lookup", "4.18"),
];

/// Capabilities without which nothing can be loaded or attached, by their numbers; CAP_SYS_ADMIN stands for the first two.
const CAPABILITIES: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];
const CAP_SYS_ADMIN: u32 = 21;

/// Refuses where the programs could not work.
pub fn check(pins: &Pins) -> Result<(), DatapathError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = effective(&status).map(missing_rights).unwrap_or_default();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        return Err(DatapathError::Unsupported(format!(
            "loading and attaching BPF programs needs {missing}: run it with sudo, or give it that capability"
        )));
    }
    if let Err(e) = probe::trivial(Kind::Classifier) {
        let what = match e.raw_os_error() {
            Some(nix::libc::EPERM) => "in a user namespace, by a seccomp filter or by lockdown they are forbidden",
            Some(nix::libc::ENOSYS) => "it was built without CONFIG_BPF_SYSCALL",
            _ => "not even the smallest one is loaded",
        };
        return Err(DatapathError::Unsupported(format!("the kernel takes no BPF programs: {e}: {what}")));
    }
    check_helpers(NEEDED)?;
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(DatapathError::Unsupported(
            "the kernel offers no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF".into(),
        ));
    }
    pins.check_file_system()
}

fn check_helpers(list: &[Needed]) -> Result<(), DatapathError> {
    let Some(lacking) = list.iter().find(|n| !probe::has_helper(n.kind, n.helper)) else {
        return Ok(());
    };
    Err(DatapathError::Unsupported(format!(
        "kernel {} is too old: it lacks {} for {}, which Linux {} has",
        kernel_release(),
        lacking.name,
        lacking.kind,
        lacking.since
    )))
}

/// The effective capabilities by `/proc/PID/status`, a bit each.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_rights(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & 1 << number != 0;
    let lacks = |number: u32| !has(number) && (number == 12 || !has(CAP_SYS_ADMIN));
    CAPABILITIES.iter().filter(|(number, _)| lacks(*number)).map(|(_, name)| *name).collect()
}

/// Whether the kernel has tcx (6.6), and with it pinned links and atomic replacement on tc hooks.
pub fn has_tcx() -> bool {
    // Of the loopback interface, the first in every network namespace: nothing is attached to it, or something of others.
    const LOOPBACK: u32 = 1;
    match bpf_syscall::programs_at(LOOPBACK, bpf_syscall::Attach::TcxIngress as u32) {
        Ok(_) => true,
        // The kernel knows of no such place. Of one that it knows, it would say that there is no such interface.
        Err(e) => e.raw_os_error() != Some(nix::libc::EINVAL),
    }
}

/// Whether a program that refuses a call of connect or sendmsg can choose the error (`bpf_set_retval` there, 6.1).
pub fn can_set_retval() -> bool {
    const SET_RETVAL: i32 = 187;
    probe::has_helper(Kind::Connect4, SET_RETVAL)
}

/// The running kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::datapath::OBJECT;

    /// Needs root, and a kernel that the programs work on. Asking takes no noticeable part of a start.
    #[test]
    fn this_kernel_has_what_is_needed_and_that_is_known_soon() {
        let began = Instant::now();
        check_helpers(NEEDED).unwrap();
        assert!(probe::trivial(Kind::Classifier).is_ok());
        can_set_retval();
        has_tcx();
        // A few milliseconds; more under load.
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }

    #[test]
    fn what_a_kernel_lacks_is_named_with_the_kernel_that_has_it() {
        // Of no kernel, and of no program of this kind.
        for helper in [1_000_000, 187] {
            let list = [needed(Kind::Classifier, helper, "bpf_something_new", "9.1")];
            let refusal = check_helpers(&list).unwrap_err().to_string();
            assert_eq!(refusal.lines().count(), 1, "{refusal}");
            for part in ["bpf_something_new", "Linux 9.1", "tc", &kernel_release()] {
                assert!(refusal.contains(part), "no {part:?} in {refusal}");
            }
        }
        assert!(probe::has_helper(Kind::Connect4, 187) || !can_set_retval());
    }

    /// The newest that is not asked for is of a kernel that is older than the newest that is.
    #[test]
    fn every_helper_that_is_younger_than_those_that_are_asked_for_is_asked_for() {
        const CALL: u8 = 0x85;
        /// `bpf_ktime_get_coarse_ns`, and what the programs do without: `bpf_set_retval`, which is asked for by itself.
        const NEWEST: i32 = 160;
        const OPTIONAL: [i32; 1] = [187];
        /// The last of the ring buffer's, which came together (5.8).
        const OLD: i32 = 134;
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let called: BTreeSet<i32> = object
            .functions
            .values()
            .flat_map(|f| &f.instructions)
            .filter(|i| i.code == CALL && i.src_reg() == 0)
            .map(|i| i.imm)
            .collect();
        assert!(called.contains(&NEWEST), "{called:?}");
        let asked: BTreeSet<i32> = NEEDED.iter().map(|n| n.helper).collect();
        let unknown: Vec<_> =
            called.iter().filter(|h| **h > OLD && !asked.contains(h) && !OPTIONAL.contains(h)).collect();
        assert!(unknown.is_empty(), "helpers that nobody asks the kernel for: {unknown:?}");
    }

    #[test]
    fn missing_rights_are_named() {
        let status = "Name:\truntime\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert!(missing_rights(u64::MAX).is_empty());
        assert_eq!(missing_rights(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing_rights(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_rights(1 << 12 | 1 << 38), ["CAP_BPF"]);
    }
}
