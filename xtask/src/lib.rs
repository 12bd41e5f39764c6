//! How the kernel side is built: shared by `cargo xtask build-ebpf` and the build script of `runtime`.
