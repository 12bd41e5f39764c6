//! Packages of a suite of Debian, by an apt configuration of its own: the machine's lists, cache and installed packages have no
//! part in it. Nothing is installed, and no maintainer script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error as FileError;

/// Debian's keys, where its keyring package puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Why packages cannot be had. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine's package sources name no mirror of the distribution.
    #[error(
        "packages of Debian are needed, and no source of this machine's apt is a Debian mirror: add one to /etc/apt/sources.list, then run apt-get update"
    )]
    NoMirror,
    /// A program failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// What was run.
        program: String,
        /// How it ended, or why it could not be started.
        status: String,
        /// Its last words.
        said: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The lists of one suite, and downloads from it.
#[derive(Debug)]
pub struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// A suite whose lists are fetched into `dir`.
    ///
    /// # Errors
    /// Where there is no mirror, or apt fails.
    pub fn fetch(name: &str, dir: PathBuf) -> Result<Self, Error> {
        let suite = Self { dir };
        let mirror = mirror().ok_or(Error::NoMirror)?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            make_dir(&suite.dir.join(folder))?;
        }
        // An empty list of what is installed: downloads bring all that a package depends on.
        for (file, text) in
            [("status", String::new()), ("suite.sources", sources(&mirror, name)), ("apt.conf", suite.configuration())]
        {
            let path = suite.dir.join(file);
            fs::write(&path, text).map_err(FileError::file(&path))?;
        }
        suite.apt("apt-get", &["-q", "update", "-o", "APT::Update::Error-Mode=any"], &suite.dir)?;
        Ok(suite)
    }

    /// The names of all its packages that start with `prefix`.
    ///
    /// # Errors
    /// Where apt fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let names = self.apt("apt-cache", &["pkgnames", prefix], &self.dir)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The version of a package; `None` where the suite lacks it.
    ///
    /// # Errors
    /// Where apt fails.
    pub fn version(&self, package: &str) -> Result<Option<String>, Error> {
        let policy = self.apt("apt-cache", &["policy", package], &self.dir)?;
        let found = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(found.filter(|version| *version != "(none)").map(str::to_owned))
    }

    /// Downloads packages into `debs`, alone or with all that they depend on; gives all files that are there then.
    ///
    /// # Errors
    /// Where apt fails.
    pub fn download(&self, packages: &[&str], with_dependencies: bool, debs: &Path) -> Result<Vec<PathBuf>, Error> {
        make_dir(debs)?;
        if with_dependencies {
            let words = [&["-q", "-y", "--download-only", "install"][..], packages].concat();
            self.apt("apt-get", &words, debs)?;
            for deb in debs_in(&self.dir.join("cache/archives"))? {
                let to = debs.join(deb.file_name().unwrap_or_default());
                fs::rename(&deb, &to).map_err(FileError::file(&deb))?;
            }
        } else {
            self.apt("apt-get", &[&["-q", "download"][..], packages].concat(), debs)?;
        }
        debs_in(debs)
    }

    fn apt(&self, program: &str, words: &[&str], folder: &Path) -> Result<String, Error> {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(folder)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut command)
    }

    /// What the machine's own configuration says of proxies and certificates stays in force.
    fn configuration(&self) -> String {
        let dir = self.dir.display();
        format!(
            "Dir::State \"{dir}\";\nDir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}/cache\";\nDir::Etc::sourcelist \"{dir}/suite.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\nAPT::Default-Release \"\";\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\nAPT::Keep-Downloaded-Packages \"true\";\n\
             APT::Update::Post-Invoke-Success \"\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        )
    }
}

/// The packages in a folder, by name.
///
/// # Errors
/// Where it cannot be read.
pub fn debs_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(FileError::file(folder))?;
    let mut debs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    Ok(debs)
}

/// The mirror that the machine's own sources name for the distribution itself, not for its security updates.
fn mirror() -> Option<String> {
    let words = ["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"];
    let listed = || {
        let listed = output(Command::new("apt-get").args(words).env("LC_ALL", "C")).ok()?;
        parse_mirror(&listed)
    };
    listed().or_else(|| {
        // The lists themselves tell whose they are.
        output(Command::new("apt-get").args(["-q", "update"])).ok()?;
        listed()
    })
}

fn parse_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

fn sources(mirror: &str, suite: &str) -> String {
    let key = if Path::new(KEYRING).exists() { format!("Signed-By: {KEYRING}\n") } else { String::new() };
    format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{key}")
}

/// Makes a folder with those above it.
///
/// # Errors
/// Names the folder.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    Ok(fs::create_dir_all(path).map_err(FileError::file(path))?)
}

/// Unpacks packages into a folder that becomes a root file system with a merged `/usr`.
///
/// # Errors
/// Names the package.
pub fn unpack(debs: &[PathBuf], root: &Path) -> Result<(), Error> {
    // Packages may still bring files under /bin: where /usr is merged, the links have to be there first.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        make_dir(&root.join("usr").join(dir))?;
        let link = root.join(dir);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(format!("usr/{dir}"), &link).map_err(FileError::file(&link))?;
        }
    }
    debs.iter().try_for_each(|deb| extract(deb, root))
}

fn extract(deb: &Path, root: &Path) -> Result<(), Error> {
    let failed = |status: String| Error::Program {
        program: format!("unpacking {}", deb.display()),
        status,
        said: "see above; remove the package and run this again".to_owned(),
    };
    let mut dpkg = Command::new("dpkg-deb");
    let mut dpkg = dpkg.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let dpkg = dpkg.as_mut().map_err(|e| failed(format!("dpkg-deb: {e}")))?;
    let Some(stream) = dpkg.stdout.take() else { return Err(failed("dpkg-deb: no output".to_owned())) };
    let tar = Command::new("tar")
        .args(["--keep-directory-symlink", "--numeric-owner", "-x", "-C"])
        .arg(root)
        .stdin(stream)
        .status();
    let dpkg = dpkg.wait().map_err(|e| failed(format!("dpkg-deb: {e}")))?;
    let tar = tar.map_err(|e| failed(format!("tar: {e}")))?;
    if !dpkg.success() || !tar.success() {
        return Err(failed(format!("dpkg-deb: {dpkg}, tar: {tar}")));
    }
    Ok(())
}

/// Runs a program to its end; gives its standard output.
///
/// # Errors
/// One line with its last words.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(done) if done.status.success() => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let mut last: Vec<&str> = said.lines().rev().take(4).collect();
            last.reverse();
            Err(Error::Program { program, status: done.status.to_string(), said: last.join("; ") })
        }
        Err(e) => Err(Error::Program { program, status: e.to_string(), said: "cannot be run".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_distribution_itself() {
        let targets = "Debian|Debian-Security|http://mirror.test/debian-security/\n\
                       Other|Debian|http://other.test/\nDebian|Debian|http://mirror.test/debian/\n";
        assert_eq!(parse_mirror(targets).as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(parse_mirror("Ubuntu|Ubuntu|http://mirror.test/ubuntu/\n"), None);
        assert_eq!(parse_mirror(""), None);
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_last_words() {
        let error = output(Command::new("sh").args(["-c", "echo no such suite >&2; exit 100"])).expect_err("fails");
        let error = error.to_string();
        assert!(error.contains("sh failed") && error.contains("no such suite"), "{error}");
    }
}
