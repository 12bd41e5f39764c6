//! Downloads the packages of a suite with all that they depend on, by an apt configuration of its own: the machine's lists,
//! cache and installed packages have no part in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Engine, Error, FileError, Source};

/// Debian's keys, where its keyring package puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages of an Engine, downloaded into `dir/debs` where they are not there yet.
pub(super) fn fetch(engine: Engine, source: &Source, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let debs = dir.join("debs");
    let complete = dir.join("debs.complete");
    let recipe = source.recipe();
    if !fs::read_to_string(&complete).is_ok_and(|text| text == recipe) {
        let mirror = mirror().ok_or(Error::NoMirror(engine))?;
        eprintln!("the lab: downloading the Engine {engine} of Debian's {} into {}", source.suite, dir.display());
        download(engine, source, &mirror, dir, &debs)?;
        fs::write(&complete, recipe).map_err(FileError::file(&complete))?;
    }
    let mut found: Vec<PathBuf> = fs::read_dir(&debs)
        .map_err(FileError::file(&debs))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    found.sort();
    Ok(found)
}

fn download(engine: Engine, source: &Source, mirror: &str, dir: &Path, debs: &Path) -> Result<(), Error> {
    let state = dir.join("apt");
    for folder in [state.join("lists/partial"), state.join("cache/archives/partial"), debs.to_owned()] {
        fs::create_dir_all(&folder).map_err(FileError::file(&folder))?;
    }
    let files = [
        ("status", String::new()),
        ("suite.sources", sources(mirror, source.suite)),
        ("apt.conf", configuration(&state)),
    ];
    for (name, text) in files {
        let path = state.join(name);
        fs::write(&path, text).map_err(FileError::file(&path))?;
    }
    let apt = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(words)
            .env("APT_CONFIG", state.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        output(engine, &mut command)
    };
    apt("apt-get", &["-q", "update", "-o", "APT::Update::Error-Mode=any"])?;
    let policy = apt("apt-cache", &["policy", source.package])?;
    let found = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).unwrap_or("nothing");
    // Debian's versions may begin with an epoch.
    let upstream = found.split_once(':').map_or(found, |(_, rest)| rest);
    if !upstream.starts_with(source.version) {
        return Err(Error::MovedOn {
            engine,
            package: source.package,
            wanted: source.version,
            suite: source.suite,
            found: found.to_owned(),
        });
    }
    let mut words = vec!["-q", "-y", "--download-only", "install"];
    words.extend(source.packages());
    apt("apt-get", &words)?;

    // What an earlier recipe left would be unpacked too.
    fs::remove_dir_all(debs).map_err(FileError::file(debs))?;
    let archives = state.join("cache/archives");
    fs::rename(&archives, debs).map_err(FileError::file(debs))?;
    fs::remove_dir_all(&state).map_err(FileError::file(&state))?;
    Ok(())
}

/// The mirror that the machine's own sources name for the distribution itself, not for its security updates.
fn mirror() -> Option<String> {
    let words = ["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"];
    let listed = Command::new("apt-get").args(words).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    parse_mirror(&String::from_utf8_lossy(&listed.stdout))
}

fn parse_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

fn sources(mirror: &str, suite: &str) -> String {
    let key = if Path::new(KEYRING).exists() { format!("Signed-By: {KEYRING}\n") } else { String::new() };
    format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{key}")
}

/// What the machine's own configuration says of proxies and certificates stays in force.
fn configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        "Dir::State \"{state}\";\nDir::State::lists \"{state}/lists\";\nDir::State::status \"{state}/status\";\n\
         Dir::Cache \"{state}/cache\";\nDir::Etc::sourcelist \"{state}/suite.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Default-Release \"\";\nAPT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n\
         APT::Keep-Downloaded-Packages \"true\";\nAcquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

/// Runs a program to its end; gives its standard output.
pub(super) fn output(engine: Engine, command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output();
    match done {
        Ok(done) if done.status.success() => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let last: Vec<&str> = said.lines().rev().take(4).collect();
            let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
            Err(Error::Program { engine, program, status: done.status.to_string(), said })
        }
        Err(e) => Err(Error::Program { engine, program, status: e.to_string(), said: "cannot be run".to_owned() }),
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
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_last_words() {
        let mut command = Command::new("sh");
        let error =
            output(Engine::Docker28, command.args(["-c", "echo no such suite >&2; exit 100"])).expect_err("fails");
        let error = error.to_string();
        assert!(error.contains("28.5") && error.contains("sh") && error.contains("no such suite"), "{error}");
    }
}
