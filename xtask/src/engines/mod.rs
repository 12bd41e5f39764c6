//! The Engines that the lab can run: the machine's own, and others unpacked from a distribution's packages.
//!
//! An unpacked Engine is a root file system of its own under `target/engines/NAME`: nothing of it is installed, none of its
//! maintainer scripts run. The packages that it was made of are kept beside it.

mod apt;
mod unpack;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error as FileError, debian};

/// The variable that names the Engine of all labs that do not ask for another.
pub const VARIABLE: &str = "RUNTIME_LAB_ENGINE";

/// The Engines on which CI runs what [`Engine::suite`] says, in this order.
pub const CI: [Engine; 4] = [Engine::Docker28, Engine::Docker20, Engine::Docker26, Engine::Podman];

/// Counts up with every change of how a root is made.
const RECIPE: u32 = 1;

/// Why there is no such Engine here. Each message is one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none of [`Engine::ALL`].
    #[error("there is no Engine \"{0}\" for the lab: it can be {known}", known = known())]
    Unknown(String),
    /// Unpacking keeps the packages' owners.
    #[error("unpacking the Engine {0} needs root: run this as root")]
    NotRoot(Engine),
    /// The suite has another version by now.
    #[error(
        "the Engine {engine} is {package} {wanted}, but Debian's {suite} has {found} now: name the suite that has {wanted} in xtask/src/engines/mod.rs, \
         or put the older packages into target/engines/{engine}/debs"
    )]
    MovedOn {
        /// Which.
        engine: Engine,
        /// The package that decides.
        package: &'static str,
        /// What its version starts with.
        wanted: &'static str,
        /// The suite.
        suite: &'static str,
        /// What it has; "nothing" where it lacks the package.
        found: String,
    },
    /// Its packages could not be had or unpacked.
    #[error("the Engine {engine}: {source}")]
    Debian {
        /// Which.
        engine: Engine,
        /// Why.
        source: debian::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Error {
    /// For `map_err`: names the Engine that an operation failed for.
    fn debian(engine: Engine) -> impl Fn(debian::Error) -> Self {
        move |source| Self::Debian { engine, source }
    }
}

/// An Engine, as the lab names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Whatever Docker Engine the machine has.
    Installed,
    /// Docker 20.10, the oldest that is supported. The machine's own where it is that.
    Docker20,
    /// Docker 26.1.
    Docker26,
    /// Docker 28.5: the whole suite runs on it.
    Docker28,
    /// Podman 5.8 by its Docker-compatible socket.
    Podman,
}

/// What of the tests runs on an Engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// All of them.
    Whole,
    /// The demo and these test files: what every Engine has to serve.
    Common(&'static [&'static str]),
}

/// The test files that run on every Engine; a test in them asks the lab where Engines differ.
const COMMON_TESTS: &[&str] = &["publishing", "linking", "live_changes", "lifecycle"];

/// Where an unpacked Engine comes from.
struct Source {
    /// The suite of Debian.
    suite: &'static str,
    /// The package that is the Engine, and what its version starts with.
    package: &'static str,
    version: &'static str,
    /// What else is unpacked, with all that these depend on.
    others: &'static [&'static str],
}

/// What every root has: what the lab needs inside, and what Engines call.
const COMMON: &[&str] =
    &["bash", "ca-certificates", "coreutils", "iproute2", "iptables", "kmod", "mount", "nftables", "procps"];
/// What Docker does not depend on, but needs.
const DOCKER: &[&str] = &["containerd", "runc", "tini"];

impl Engine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Installed, Self::Docker20, Self::Docker26, Self::Docker28, Self::Podman];

    /// The name by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Docker20 => "20.10",
            Self::Docker26 => "26.1",
            Self::Docker28 => "28.5",
            Self::Podman => "podman",
        }
    }

    /// What of the tests runs on it.
    pub const fn suite(self) -> Suite {
        match self {
            Self::Installed | Self::Docker28 => Suite::Whole,
            Self::Docker20 | Self::Docker26 | Self::Podman => Suite::Common(COMMON_TESTS),
        }
    }

    /// The one that the environment names; without, the machine's own.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn from_environment() -> Result<Self, Error> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
            _ => Ok(Self::Installed),
        }
    }

    const fn source(self) -> Option<Source> {
        let (suite, package, version, others): (_, _, _, &[&str]) = match self {
            Self::Installed => return None,
            Self::Docker20 => ("bookworm", "docker.io", "20.10.", &[]),
            Self::Docker26 => ("trixie", "docker.io", "26.1.", &["docker-cli"]),
            Self::Docker28 => ("forky", "docker.io", "28.5.", &["docker-cli", "docker-compose"]),
            // Its socket is asked by the same client as Docker's.
            Self::Podman => {
                ("forky", "podman", "5.8.", &["docker-cli", "netavark", "aardvark-dns", "crun", "catatonit"])
            }
        };
        Some(Source { suite, package, version, others })
    }

    /// Whether it is Podman: its engine, its network `podman`, its own options.
    pub const fn is_podman(self) -> bool {
        matches!(self, Self::Podman)
    }

    /// Its root file system under the folder `target` of the workspace, fetched and unpacked where nobody has yet; `None` for
    /// the machine's own.
    ///
    /// # Errors
    /// Where it cannot be had, with the remedy.
    pub fn root(self, target: &Path) -> Result<Option<Root>, Error> {
        let Some(source) = self.source() else { return Ok(None) };
        if self == Self::Docker20 && machine_has(source.version) {
            return Ok(None);
        }
        let dir = target.join("engines").join(self.name());
        let root = Root { dir: dir.clone() };
        let recipe = source.recipe();
        let finished = dir.join("finished");
        let is_finished = || fs::read_to_string(&finished).is_ok_and(|text| text == recipe);
        if is_finished() {
            return Ok(Some(root));
        }
        if !is_root() {
            return Err(Error::NotRoot(self));
        }
        fs::create_dir_all(&dir).map_err(FileError::file(&dir))?;
        // Many test programs start at once; one makes the root, the others wait for it.
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(FileError::file(&path))?;
        lock.lock().map_err(FileError::file(&path))?;
        if !is_finished() {
            let debs = apt::fetch(self, &source, &dir)?;
            unpack::unpack(self, &debs, &root)?;
            fs::write(&finished, &recipe).map_err(FileError::file(&finished))?;
        }
        Ok(Some(root))
    }
}

impl Source {
    fn packages(&self) -> Vec<&'static str> {
        let docker = if self.package == "docker.io" { DOCKER } else { &[] };
        [self.package].iter().chain(self.others).chain(docker).chain(COMMON).copied().collect()
    }

    /// What a finished root was made by.
    fn recipe(&self) -> String {
        format!("{RECIPE} {} {} {}\n", self.suite, self.version, self.packages().join(" "))
    }
}

/// A root file system that is complete.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// The folder that becomes `/`.
    pub fn path(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A folder of its firewall programs for use outside of it: a list of rules has to be read by a program that is no older
    /// than the one that wrote them.
    pub fn programs(&self) -> PathBuf {
        self.dir.join("bin")
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or_else(|| Error::Unknown(name.to_owned()))
    }
}

/// Removes a folder, where it is there.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FileError::file(path)(e).into()),
        _ => Ok(()),
    }
}

fn known() -> String {
    Engine::ALL.map(Engine::name).join(", ")
}

/// Whether the machine's own Docker is of this version.
fn machine_has(version: &str) -> bool {
    let output = std::process::Command::new("dockerd").arg("--version").output();
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).starts_with(&format!("Docker version {version}")))
}

fn is_root() -> bool {
    // The owner of a process's own folder is its effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_go_by_their_names() {
        for engine in Engine::ALL {
            assert_eq!(engine.name().parse::<Engine>().expect("its own name"), engine);
        }
        let error = "19.03".parse::<Engine>().expect_err("too old").to_string();
        assert!(error.contains("\"19.03\"") && error.contains("26.1, 28.5, podman"), "{error}");
    }

    #[test]
    fn a_root_of_another_recipe_is_not_finished() {
        let recipes: Vec<String> = Engine::ALL.iter().filter_map(|e| e.source()).map(|s| s.recipe()).collect();
        for (i, recipe) in recipes.iter().enumerate() {
            assert!(recipes[i + 1..].iter().all(|other| other != recipe));
        }
    }
}
