//! Asking the verifier what it knows, by programs that are never run.

use std::fmt;
use std::io::Result;

use super::bpf_syscall;

/// A kind of program, as far as the kernel tells helpers apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At a tc hook.
    Classifier,
    /// At an XDP hook.
    Xdp,
    /// At the cgroup hook of connect, IPv4.
    Connect4,
}

impl Kind {
    /// `enum bpf_prog_type` and `enum bpf_attach_type` of the kernel's uapi.
    const fn numbers(self) -> (u32, u32) {
        match self {
            Kind::Classifier => (3, 0),
            Kind::Xdp => (6, 0),
            Kind::Connect4 => (18, 10),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Classifier => "tc programs",
            Kind::Xdp => "XDP programs",
            Kind::Connect4 => "cgroup programs",
        })
    }
}

/// `r0 = 0`.
const ZERO: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

/// Loads a program that does nothing.
pub fn trivial(kind: Kind) -> Result<()> {
    bpf_syscall::load_program(kind.numbers(), &[ZERO, EXIT], &mut []).map(drop)
}

/// Whether programs of a kind can call a helper, by its number.
pub fn has_helper(kind: Kind, helper: i32) -> bool {
    let [a, b, c, d] = helper.to_le_bytes();
    let call = [0x85, 0, 0, 0, a, b, c, d];
    let mut log = [0; 4096];
    if bpf_syscall::load_program(kind.numbers(), &[call, ZERO, EXIT], &mut log).is_ok() {
        return true;
    }
    let length = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..length]);
    // Of a helper that it knows, the verifier misses the arguments.
    !["unknown func", "invalid func", "cannot use helper"].iter().any(|words| log.contains(words))
}
