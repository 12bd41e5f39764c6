//! Generic receive offload of containers' interfaces.
//!
//! XDP can only redirect into a veth whose other end polls its packets (NAPI), and a veth does so with GRO on.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;
use nix::net::if_::if_nameindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_SGRO` of the kernel's uapi.
const ETHTOOL_SGRO: u32 = 0x2c;
/// `SIOCETHTOOL` of the kernel's uapi.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `struct ethtool_value` of the kernel's uapi.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Turns GRO on or off for every interface in the network namespace of a process.
///
/// # Errors
/// Where the process is gone, or an interface refuses.
pub fn set_gro(pid: u32, on: bool) -> std::io::Result<()> {
    let namespace = File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))?;
    // A thread of its own enters the namespace, and ends in it.
    std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        for interface in &if_nameindex()? {
            let name = interface.name().to_bytes();
            if name != b"lo" {
                set(fd.as_raw_fd(), name, on)?;
            }
        }
        Ok(())
    })
    .join()
    .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended early")))
}

fn set(fd: i32, name: &[u8], on: bool) -> std::io::Result<()> {
    let mut value = EthtoolValue { command: ETHTOOL_SGRO, data: u32::from(on) };
    // SAFETY: plain integers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: names are shorter than the field.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value that it points to live until the call returns.
    match unsafe { libc::ioctl(fd, SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
