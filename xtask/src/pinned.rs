//! Versions of tools that the project pins.

/// The version of bpf-linker that builds the kernel side.
pub const LINKER: &str = "0.10.3";
/// Major version of the LLVM that it loads.
pub const LLVM: u32 = 22;
