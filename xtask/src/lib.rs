//! How the kernel side is built: shared by `cargo xtask build-ebpf` and the build script of `runtime`.
//!
//! `core` has no prebuilt form for BPF targets, so [`toolchain`] finds a compiler that has the source of its own standard
//! library, [`linker`] finds bpf-linker and the LLVM that it is to load, and [`ebpf`] puts the two together. [`engines`] and
//! [`debian`] unpack what the lab runs from a distribution's packages.
//!
//! ```
//! use xtask::engines::{Engine, Suite};
//!
//! let engine: Engine = "28.5".parse()?;
//! assert_eq!(engine.suite(), Suite::Whole);
//! assert!("1.0".parse::<Engine>().is_err());
//! # Ok::<(), xtask::engines::Error>(())
//! ```
#![warn(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::invalid_html_tags)]

pub mod debian;
pub mod ebpf;
pub mod engines;
pub mod linker;
pub mod pinned;
pub mod toolchain;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// The folder of the build inside the workspace: own target directory, so that no lock of an outer cargo is waited for.
pub const TARGET_DIR: &str = "target/ebpf";
/// Where tools that this project pins are installed, inside the workspace.
pub const TOOLS_DIR: &str = "target/tools";

/// Why the kernel side was not built. Each message is one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No compiler at hand fits.
    #[error(
        "no toolchain can build `core` for BPF ({found}): run `rustup component add rust-src`, or as root \
         `cargo xtask setup`, which does that or installs Debian's rustc-web, cargo-web and rust-web-src"
    )]
    NoToolchain {
        /// What was found, and why each does not fit.
        found: String,
    },
    /// The linker is not there in the version that the project pins.
    #[error("bpf-linker {wanted} is missing{found}: run `cargo xtask build-ebpf`, which installs it", wanted = linker::VERSION)]
    NoLinker {
        /// Empty, or the other version that was found, in words.
        found: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Its path or name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The compiler refused; what it said stands above this line.
    #[error("building runtime-ebpf with {toolchain} failed ({status}): see the compiler's messages above")]
    Build {
        /// For people.
        toolchain: String,
        /// Of cargo.
        status: ExitStatus,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the file that an operation failed on.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// A command without the variables that an outer cargo, rustup or clippy left, which would steer an inner one.
///
/// Kept: where crates and toolchains are stored, and how the registry is reached.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if is_outer_cargos(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_outer_cargos(name: &OsString) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
    ];
    const LEFT: [&str; 5] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP", "DEP_"];
    const EXACT: [&str; 10] = [
        "RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "CLIPPY_ARGS",
    ];
    let Some(name) = name.to_str() else { return false };
    let begins_with = |prefix: &&str| name.starts_with(prefix);
    !KEPT.iter().any(begins_with) && (LEFT.iter().any(begins_with) || EXACT.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_cargo_leaves_no_trace() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_CFG_TARGET_ARCH",
            "CARGO_MAKEFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "OUT_DIR",
            "DEP_Z_ROOT",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_outer_cargos(&name.into()), "{name}");
        }
        for name in
            ["PATH", "HOME", "CARGO_HOME", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "RUST_BACKTRACE"]
        {
            assert!(!is_outer_cargos(&name.into()), "{name}");
        }
    }
}
