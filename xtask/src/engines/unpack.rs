//! Makes a root file system of packages, without any of their maintainer scripts.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Engine, Error, FileError, Root, remove};
use crate::debian;

/// What reads the firewall's rules, by the program that each is a name of.
const FIREWALL: [(&str, &str); 5] = [
    ("nft", "nft"),
    ("iptables", "xtables-nft-multi"),
    ("ip6tables", "xtables-nft-multi"),
    ("iptables-save", "xtables-nft-multi"),
    ("ip6tables-save", "xtables-nft-multi"),
];

/// Unpacks `debs` into the root.
pub(super) fn unpack(engine: Engine, debs: &[PathBuf], root: &Root) -> Result<(), Error> {
    eprintln!("the lab: unpacking the Engine {engine} from {} packages", debs.len());
    let part = root.dir.join("root.part");
    for old in [&part, &root.path(), &root.programs()] {
        remove(old)?;
    }
    debian::unpack(debs, &part).map_err(Error::debian(engine))?;
    debian::output(Command::new("ldconfig").arg("-r").arg(&part)).map_err(Error::debian(engine))?;
    // What the alternatives of installed packages would be.
    for (name, program) in FIREWALL
        .into_iter()
        .skip(1)
        .chain([("iptables-restore", "xtables-nft-multi"), ("ip6tables-restore", "xtables-nft-multi")])
    {
        link(program, &part.join("usr/sbin").join(name))?;
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    for (name, text) in files {
        write(&part.join(name), text)?;
    }
    for name in ["root", "run", "tmp", "var/tmp"] {
        let folder = part.join(name);
        fs::create_dir_all(&folder).map_err(FileError::file(&folder))?;
    }
    fs::rename(&part, root.path()).map_err(FileError::file(&part))?;
    programs(root)
}

/// Scripts that run the root's firewall programs with the root's own libraries. They find it by where they lie themselves:
/// the folder of a build may be moved.
fn programs(root: &Root) -> Result<(), Error> {
    let libraries = below(&root.path(), "usr/lib", "libc.so.6")?;
    let loader = loader(&root.path())?;
    for (name, program) in FIREWALL {
        let text = format!(
            "#!/bin/sh\nroot=${{0%/*}}/../root\nexport XTABLES_LIBDIR=\"$root/{libraries}/xtables\"\n\
             exec \"$root/{loader}\" --argv0 {name} --library-path \"$root/{libraries}:$root/usr/lib\" \"$root/usr/sbin/{program}\" \"$@\"\n"
        );
        let path = root.programs().join(name);
        fs::create_dir_all(root.programs()).map_err(FileError::file(&path))?;
        write(&path, &text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(FileError::file(&path))?;
    }
    Ok(())
}

/// The folder under `root/folder` that has `file`, relative to the root.
fn below(root: &Path, folder: &str, file: &str) -> Result<String, Error> {
    let dir = root.join(folder);
    let entries = fs::read_dir(&dir).map_err(FileError::file(&dir))?;
    let mut found = entries.flatten().filter(|e| e.path().join(file).exists());
    let Some(entry) = found.next() else {
        return Err(FileError::file(&dir.join(file))(std::io::ErrorKind::NotFound.into()).into());
    };
    Ok(format!("{folder}/{}", entry.file_name().to_string_lossy()))
}

/// The dynamic loader, relative to the root: `usr/lib64/ld-linux-x86-64.so.2`, `usr/lib/ld-linux-aarch64.so.1`.
fn loader(root: &Path) -> Result<String, Error> {
    for folder in ["usr/lib64", "usr/lib"] {
        let dir = root.join(folder);
        for entry in fs::read_dir(&dir).map_err(FileError::file(&dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("ld-linux-") {
                return Ok(format!("{folder}/{name}"));
            }
        }
    }
    Err(FileError::file(&root.join("usr/lib64/ld-linux-*"))(std::io::ErrorKind::NotFound.into()).into())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    Ok(fs::write(path, text).map_err(FileError::file(path))?)
}

/// A link that is there already stays: packages bring some of them.
fn link(to: &str, path: &Path) -> Result<(), Error> {
    match symlink(to, path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(FileError::file(path)(e).into()),
        _ => Ok(()),
    }
}
