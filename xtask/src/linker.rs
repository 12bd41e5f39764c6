//! bpf-linker: the version that the project pins, where it is, and the LLVM that it loads.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{Error, TARGET_DIR, TOOLS_DIR, clean_command, toolchain::Toolchain};

pub use crate::pinned::{LINKER as VERSION, LLVM};

/// The linker in the pinned version: the project's own, or one on the PATH.
///
/// # Errors
/// [`Error::NoLinker`].
pub fn find(root: &Path) -> Result<PathBuf, Error> {
    let mut other = String::new();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [root.join(TOOLS_DIR).join("bin")].into_iter().chain(std::env::split_paths(&on_path));
    for file in folders.map(|folder| folder.join("bpf-linker")).filter(|file| file.is_file()) {
        match version(&file) {
            Some(version) if version == VERSION => return Ok(file),
            Some(version) if other.is_empty() => other = format!(" ({} is {version})", file.display()),
            _ => {}
        }
    }
    Err(Error::NoLinker { found: other })
}

fn version(file: &Path) -> Option<String> {
    let output = clean_command(file).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Of `bpf-linker 0.10.3`.
fn parse_version(text: &str) -> Option<String> {
    Some(text.trim().strip_prefix("bpf-linker ")?.to_owned())
}

/// A folder that holds nothing but a link to the LLVM of the toolchain, for LD_LIBRARY_PATH: bpf-linker takes the first
/// `libLLVM*` that opens, of whatever version.
///
/// # Errors
/// [`Error::File`].
pub fn llvm_folder(root: &Path, toolchain: &Toolchain) -> Result<PathBuf, Error> {
    let folder = root.join(TARGET_DIR).join("llvm");
    let Some(library) = &toolchain.llvm_library else {
        return Err(Error::NoToolchain { found: format!("{} has no libLLVM", toolchain.name) });
    };
    // The library's own name: the compiler, which sees the folder too, must find its own under it.
    let link = folder.join(library.file_name().unwrap_or_default());
    let is_alone = folder.read_dir().is_ok_and(|entries| entries.count() == 1);
    if is_alone && fs::read_link(&link).is_ok_and(|target| &target == library) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    symlink(library, &link).map_err(Error::file(&link))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("bpf-linker 0.10.3\n").as_deref(), Some("0.10.3"));
        assert_eq!(parse_version("error: unable to find LLVM"), None);
    }
}
