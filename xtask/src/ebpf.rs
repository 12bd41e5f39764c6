//! Builds the kernel side into one object, with BTF and line information.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, TARGET_DIR, clean_command, linker,
    toolchain::{self, Toolchain},
};

/// The BPF target of little-endian machines.
const TARGET: &str = "bpfel-unknown-none";
/// For the compiler: line information, and BTF made of it.
const RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf";

/// Builds the kernel side of the workspace at `root`, and returns the object: `target/ebpf/runtime-ebpf.o`.
///
/// Does nothing but look where nothing has changed. The compiler writes to this process's stderr.
///
/// # Errors
/// [`Error`], each with its remedy.
pub fn build(root: &Path) -> Result<PathBuf, Error> {
    let toolchain = toolchain::find()?;
    let mut command = command(root, &toolchain, &linker::find(root)?, &linker::llvm_folder(root, &toolchain)?);
    let program = toolchain.cargo.display().to_string();
    let status = command.status().map_err(|source| Error::Start { program, source })?;
    if !status.success() {
        return Err(Error::Build { toolchain: toolchain.name, status });
    }
    let built = root.join(TARGET_DIR).join(TARGET).join("release/runtime-ebpf");
    let object = root.join(TARGET_DIR).join("runtime-ebpf.o");
    copy(&built, &object)?;
    Ok(object)
}

/// Puts a copy in place at once, so that no reader sees half of one.
///
/// # Errors
/// [`Error::File`].
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let half = to.with_extension(format!("o.{}", std::process::id()));
    fs::copy(from, &half).map_err(Error::file(from))?;
    fs::rename(&half, to).map_err(Error::file(to))
}

/// What the object is made of, for `cargo::rerun-if-changed`.
pub fn sources(root: &Path) -> Vec<PathBuf> {
    [
        "runtime-ebpf/Cargo.toml",
        "runtime-ebpf/Cargo.lock",
        "runtime-ebpf/src",
        "runtime-common/Cargo.toml",
        "runtime-common/src",
    ]
    .iter()
    .map(|path| root.join(path))
    .collect()
}

fn command(root: &Path, toolchain: &Toolchain, linker: &Path, llvm: &Path) -> Command {
    let mut command = clean_command(&toolchain.cargo);
    command
        .current_dir(root.join("runtime-ebpf"))
        .args(["build", "--release", "-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(root.join(TARGET_DIR))
        // `-Z` on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("LD_LIBRARY_PATH", OsString::from(llvm));
    command
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_side_is_under_the_workspaces_lints() {
        let lints = |manifest: &str, table: &str| -> Vec<String> {
            let lines = manifest.lines().skip_while(|line| *line != table).skip(1);
            lines.take_while(|line| !line.is_empty() && !line.starts_with('[')).map(str::to_owned).collect()
        };
        let (workspace, ours) = (include_str!("../../Cargo.toml"), include_str!("../../runtime-ebpf/Cargo.toml"));
        for kind in ["rust", "clippy"] {
            let expected = lints(workspace, &format!("[workspace.lints.{kind}]"));
            assert!(!expected.is_empty(), "{kind}");
            assert_eq!(lints(ours, &format!("[lints.{kind}]")), expected, "{kind}");
        }
    }
}
