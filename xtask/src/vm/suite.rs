//! Packages of a suite, by an apt configuration of its own: the machine's lists, cache and installed packages have no part in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Debian's keys, where its keyring package puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The lists of one suite of Debian, and downloads from it.
pub struct Suite {
    name: &'static str,
    dir: PathBuf,
}

impl Suite {
    /// A suite whose lists are fetched into `dir`.
    pub fn fetch(name: &'static str, dir: PathBuf) -> Result<Self> {
        let suite = Self { name, dir };
        let mirror = mirror().context(
            "kernels come from Debian's packages, and no source of this machine's apt is a Debian mirror: \
             add one to /etc/apt/sources.list, then run apt-get update",
        )?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            make_dir(&suite.dir.join(folder))?;
        }
        // An empty list of what is installed: downloads bring all that a package depends on.
        for (file, text) in
            [("status", String::new()), ("suite.sources", sources(&mirror, name)), ("apt.conf", suite.configuration())]
        {
            let path = suite.dir.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        suite.apt("apt-get", &["-q", "update", "-o", "APT::Update::Error-Mode=any"], &suite.dir)?;
        Ok(suite)
    }

    /// The names of all its packages that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.apt("apt-cache", &["pkgnames", prefix], &self.dir)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages into `debs`, alone or with all that they depend on; gives the files.
    pub fn download(&self, packages: &[String], with_dependencies: bool, debs: &Path) -> Result<Vec<PathBuf>> {
        make_dir(debs)?;
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        if with_dependencies {
            let words = [&["-q", "-y", "--download-only", "install"][..], &packages].concat();
            self.apt("apt-get", &words, debs)?;
            let archives = self.dir.join("cache/archives");
            for deb in debs_in(&archives)? {
                let to = debs.join(deb.file_name().unwrap_or_default());
                fs::rename(&deb, &to).with_context(|| format!("cannot move {}", deb.display()))?;
            }
        } else {
            self.apt("apt-get", &[&["-q", "download"][..], &packages].concat(), debs)?;
        }
        debs_in(debs)
    }

    fn apt(&self, program: &str, words: &[&str], folder: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(folder)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        super::tool::output(&mut command).with_context(|| format!("packages of Debian's {}", self.name))
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
fn debs_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut debs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    Ok(debs)
}

/// The mirror that the machine's own sources name for the distribution itself, not for its security updates.
fn mirror() -> Option<String> {
    let words = ["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"];
    let listed = || {
        let output = Command::new("apt-get").args(words).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
        parse_mirror(&String::from_utf8_lossy(&output.stdout))
    };
    listed().or_else(|| {
        // The lists themselves tell whose they are.
        super::tool::output(Command::new("apt-get").args(["-q", "update"])).ok()?;
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
pub fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Unpacks packages into a folder, without their maintainer scripts.
pub fn unpack(debs: &[PathBuf], root: &Path) -> Result<()> {
    // Packages may still bring files under /bin: where /usr is merged, the links have to be there first.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        make_dir(&root.join("usr").join(dir))?;
        let link = root.join(dir);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(format!("usr/{dir}"), &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    for deb in debs {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut dpkg = dpkg.spawn().context("cannot run dpkg-deb: this task is for Debian and its like")?;
        let stream = dpkg.stdout.take().context("dpkg-deb has no output")?;
        let mut tar = Command::new("tar");
        tar.args(["--keep-directory-symlink", "--numeric-owner", "-x", "-C"]).arg(root).stdin(stream);
        let unpacked = tar.status().context("cannot run tar")?;
        let read = dpkg.wait().context("dpkg-deb")?;
        if !unpacked.success() || !read.success() {
            bail!("cannot unpack {} (dpkg-deb: {read}, tar: {unpacked}): remove it and run this again", deb.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_distribution_itself() {
        let targets = "Debian|Debian-Security|http://mirror.test/debian-security/\n\
                       Other|Debian|http://other.test/\nDebian|Debian|http://mirror.test/debian/\n";
        assert_eq!(parse_mirror(targets).as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(parse_mirror(""), None);
    }
}
