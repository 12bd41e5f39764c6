//! The kernel side, as the build script made it.

/// An ELF object for the BPF target, with BTF.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/runtime-ebpf.o"));
