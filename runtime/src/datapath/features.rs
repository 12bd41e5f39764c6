//! What the kernel must offer, asked before anything is attached.

use nix::unistd::Uid;

use super::{DatapathError, Pins};

/// The oldest kernel whose helpers the programs use: `bpf_ktime_get_coarse_ns` (5.11) and `bpf_redirect_peer` (5.10).
const OLDEST: (u32, u32) = (5, 11);

/// Refuses where the programs could not work.
pub fn check(pins: &Pins) -> Result<(), DatapathError> {
    if !Uid::effective().is_root() {
        return Err(DatapathError::Unsupported("loading BPF programs needs root: run it with sudo".into()));
    }
    let release = kernel_release();
    if version(&release).is_some_and(|v| v < OLDEST) {
        return Err(DatapathError::Unsupported(format!(
            "kernel {release} is too old: bpf_ktime_get_coarse_ns needs Linux 5.11"
        )));
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(DatapathError::Unsupported(
            "the kernel offers no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF".into(),
        ));
    }
    pins.check_file_system()
}

/// Whether the kernel has tcx (6.6), and with it pinned links and atomic replacement on tc hooks.
pub fn has_tcx() -> bool {
    at_least(6, 6)
}

/// Whether the running kernel is at least of this version; one that does not tell is taken for new.
pub fn at_least(major: u32, minor: u32) -> bool {
    version(&kernel_release()).is_none_or(|v| v >= (major, minor))
}

/// The running kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(version("6.1"), Some((6, 1)));
        assert_eq!(version("linux"), None);
    }
}
