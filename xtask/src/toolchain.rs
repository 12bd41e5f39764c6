//! Which compiler can build `core` for BPF.
//!
//! The source of `core` must be that of the very compiler, which must be new enough for the code, and speak the LLVM
//! version that the pinned bpf-linker reads.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{Error, clean_command, pinned};

/// The oldest compiler, as in `rust-version` of the kernel side: 1.MINOR.
pub const OLDEST_MINOR: u32 = 95;

/// What is known of one compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// For people: `rustup's stable-x86_64-unknown-linux-gnu`, `/usr/bin/rustc`.
    pub name: String,
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// 96 of 1.96.0.
    pub minor: u32,
    /// Major version of the LLVM inside.
    pub llvm: u32,
    /// Whether the source of its own standard library lies beside it.
    pub has_source: bool,
    /// The LLVM it was linked with, as a shared library.
    pub llvm_library: Option<PathBuf>,
}

impl Toolchain {
    /// Why it cannot build the kernel side, in a few words; nothing if it can.
    pub fn unfit(&self) -> Option<String> {
        if self.minor < OLDEST_MINOR {
            Some(format!("is 1.{}, older than 1.{OLDEST_MINOR}", self.minor))
        } else if self.llvm != pinned::LLVM {
            Some(format!("has LLVM {}, and bpf-linker {} reads {}", self.llvm, pinned::LINKER, pinned::LLVM))
        } else if !self.has_source {
            Some("has no source of its standard library".to_owned())
        } else if self.llvm_library.is_none() {
            Some(format!("comes without a shared libLLVM {}", pinned::LLVM))
        } else {
            None
        }
    }
}

/// The first that fits.
///
/// # Errors
/// [`Error::NoToolchain`], which tells what was found.
pub fn choose(found: Vec<Toolchain>) -> Result<Toolchain, Error> {
    let mut reasons = Vec::new();
    for toolchain in found {
        match toolchain.unfit() {
            None => return Ok(toolchain),
            Some(reason) => reasons.push(format!("{} {reason}", toolchain.name)),
        }
    }
    let found = if reasons.is_empty() { "no rustc was found".to_owned() } else { reasons.join("; ") };
    Err(Error::NoToolchain { found })
}

/// Finds the one to use: rustup's, the active first, then the one on the PATH, then the distribution's.
///
/// # Errors
/// [`Error::NoToolchain`], which tells what was found.
pub fn find() -> Result<Toolchain, Error> {
    choose(probe_all())
}

fn probe_all() -> Vec<Toolchain> {
    let mut found: Vec<Toolchain> = Vec::new();
    let mut add = |toolchain: Option<Toolchain>| {
        found.extend(toolchain.filter(|new| found.iter().all(|old| old.rustc != new.rustc)));
    };
    for (name, folder) in rustup_toolchains() {
        add(probe(&format!("rustup's {name}"), &folder.join("bin")));
    }
    for folder in on_path().into_iter().chain(["/usr/bin".into(), "/usr/local/bin".into()]) {
        add(probe(&folder.join("rustc").display().to_string(), &folder));
    }
    found
}

/// Name and folder of each, the active one first. Asked with the outer environment: that tells which is active.
fn rustup_toolchains() -> Vec<(String, PathBuf)> {
    let output = std::process::Command::new("rustup").args(["toolchain", "list", "-v"]).output();
    match output {
        Ok(output) if output.status.success() => parse_toolchains(&String::from_utf8_lossy(&output.stdout)),
        _ => Vec::new(),
    }
}

/// The folder of the compiler on the PATH, which need not be rustup's or the distribution's.
fn on_path() -> Option<PathBuf> {
    let output = clean_command("rustc").args(["--print", "sysroot"]).output().ok()?;
    Some(Path::new(String::from_utf8_lossy(&output.stdout).trim_end()).join("bin"))
}

/// Lines of `rustup toolchain list -v`: `NAME (active, default) /FOLDER`, the bracket being optional.
fn parse_toolchains(list: &str) -> Vec<(String, PathBuf)> {
    let mut toolchains: Vec<_> = list
        .lines()
        .filter_map(|line| {
            let (head, folder) = line.split_at(line.find(" /").or_else(|| line.find("\t/"))?);
            let name = head.split_whitespace().next()?;
            Some((!head.contains("active"), name.to_owned(), PathBuf::from(folder.trim())))
        })
        .collect();
    toolchains.sort_by_key(|(inactive, ..)| *inactive);
    toolchains.into_iter().map(|(_, name, folder)| (name, folder)).collect()
}

fn probe(name: &str, folder: &Path) -> Option<Toolchain> {
    let (rustc, cargo) = (folder.join("rustc"), folder.join("cargo"));
    if !cargo.exists() {
        return None;
    }
    let ask = |arguments: &[&str]| {
        let output = clean_command(&rustc).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let version = Version::parse(&ask(&["-vV"])?)?;
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim_end());
    Some(Toolchain {
        name: name.to_owned(),
        minor: version.minor,
        llvm: version.llvm,
        has_source: sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists(),
        llvm_library: llvm_library(&sysroot, &version),
        rustc,
        cargo,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    minor: u32,
    llvm: u32,
    host: String,
}

impl Version {
    /// Of `rustc -vV`.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let minor = field("release")?.split('.').nth(1)?.parse().ok()?;
        let llvm = field("LLVM version")?.split('.').next()?.parse().ok()?;
        Some(Self { minor, llvm, host: field("host")?.to_owned() })
    }
}

/// The shared LLVM of a compiler: in its own `lib` (rustup), or where the distribution keeps it.
fn llvm_library(sysroot: &Path, version: &Version) -> Option<PathBuf> {
    let llvm = version.llvm;
    // x86_64-unknown-linux-gnu -> x86_64-linux-gnu, Debian's name for the folder.
    let multiarch = version.host.replacen("-unknown", "", 1);
    let folders = [
        sysroot.join("lib"),
        sysroot.join("lib").join(multiarch),
        sysroot.join("lib64"),
        PathBuf::from(format!("/usr/lib/llvm-{llvm}/lib")),
    ];
    folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().filter_map(Result::ok).find_map(|entry| {
        let is_it = entry.file_name().to_str().is_some_and(|name| is_llvm(name, llvm)) && is_elf(&entry.path());
        is_it.then(|| entry.path())
    })
}

/// `libLLVM.so.22.1`, `libLLVM-22.so`, `libLLVM.so.22.1-rust-1.95.0-stable`.
fn is_llvm(file: &str, major: u32) -> bool {
    ["libLLVM.so.", "libLLVM-"].iter().filter_map(|prefix| file.strip_prefix(prefix)).any(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse() == Ok(major) && (file.contains(".so"))
    })
}

/// rustup's `libLLVM-22-rust-….so` is a linker script, which cannot be loaded.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(name: &str) -> Toolchain {
        Toolchain {
            name: name.to_owned(),
            rustc: format!("/{name}/rustc").into(),
            cargo: format!("/{name}/cargo").into(),
            minor: 96,
            llvm: 22,
            has_source: true,
            llvm_library: Some("/lib/libLLVM.so.22.1".into()),
        }
    }

    #[test]
    fn the_first_that_fits_is_chosen() {
        let bare = Toolchain { has_source: false, ..toolchain("bare") };
        let chosen = choose(vec![bare, toolchain("good"), toolchain("later")]).map(|chosen| chosen.name);
        assert_eq!(chosen.ok().as_deref(), Some("good"));
    }

    #[test]
    fn a_refusal_is_one_line_that_tells_of_each_and_the_remedy() {
        let found = vec![
            Toolchain { has_source: false, ..toolchain("bare") },
            Toolchain { minor: 85, llvm: 19, ..toolchain("old") },
            Toolchain { llvm: 23, ..toolchain("new") },
            Toolchain { llvm_library: None, ..toolchain("static") },
        ];
        let message = choose(found).expect_err("none fits").to_string();
        for part in [
            "bare has no source of its standard library",
            "old is 1.85, older than 1.95",
            "new has LLVM 23, and bpf-linker 0.10.3 reads 22",
            "static comes without a shared libLLVM 22",
            "rustup component add rust-src",
            "cargo xtask setup",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(message.lines().count(), 1);
        assert!(choose(Vec::new()).expect_err("none there").to_string().contains("no rustc was found"));
    }

    #[test]
    fn versions_are_read() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.96.0-nightly\nLLVM version: 22.1.8\n";
        let version = Version { minor: 96, llvm: 22, host: "x86_64-unknown-linux-gnu".to_owned() };
        assert_eq!(Version::parse(text), Some(version));
        assert_eq!(Version::parse("rustc 1.96.0"), None);
    }

    #[test]
    fn the_active_toolchain_comes_first() {
        let list = "stable-x86_64-unknown-linux-gnu (default) /home/u/.rustup/toolchains/stable\n\
                    nightly-x86_64-unknown-linux-gnu (active) /home/u/.rustup/toolchains/nightly\n\
                    mine\t/opt/my rust\n";
        let names: Vec<_> = parse_toolchains(list);
        assert_eq!(names[0].1, Path::new("/home/u/.rustup/toolchains/nightly"));
        assert_eq!(names[1].0, "stable-x86_64-unknown-linux-gnu");
        assert_eq!(names[2], ("mine".to_owned(), "/opt/my rust".into()));
        assert_eq!(parse_toolchains("no installed toolchains\n"), []);
    }

    #[test]
    fn the_right_llvm_is_known_by_its_name() {
        for name in ["libLLVM.so.22.1", "libLLVM-22.so", "libLLVM.so.22.1-rust-1.95.0-stable"] {
            assert!(is_llvm(name, 22), "{name}");
        }
        for name in ["libLLVM-14.so", "libLLVM.so.2", "libLLVMCore.a", "libLLVM-22.a", "libLLVM.so"] {
            assert!(!is_llvm(name, 22), "{name}");
        }
    }
}
