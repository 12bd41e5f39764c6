//! What was built here, as a machine's third disk: the programs under test, the tests, and the script that runs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xtask::debian::{make_dir, output};

use super::store::{Store, remove};
use crate::run::{cargo, run};

/// Programs that scenarios start; they look for them in the folder above their own.
const PROGRAMS: [&str; 3] = ["runtime", "peer", "load"];

/// Everything built that machines run.
pub struct Built {
    /// The folder of the programs.
    target: PathBuf,
    /// The object with the kernel side.
    object: PathBuf,
    /// Test programs by the name of their file under tests/tests.
    tests: BTreeMap<String, PathBuf>,
}

impl Built {
    /// Builds the programs, and the tests of these names.
    pub fn build(root: &Path, tests: &[&str]) -> Result<Self> {
        let object = xtask::ebpf::build(root)?;
        let mut words = vec!["build", "--quiet", "--package", "tests", "--bins"];
        if !tests.is_empty() {
            words.extend(["--package", "runtime"]);
        }
        run(cargo().args(words))?;
        let mut built = BTreeMap::new();
        if !tests.is_empty() {
            let mut command = cargo();
            command.args(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics", "-p", "tests"]);
            command.args(tests.iter().flat_map(|name| ["--test", name])).stderr(Stdio::inherit());
            let told = command.output().context("cannot run cargo")?;
            if !told.status.success() {
                bail!("the tests that run in machines cannot be built: see above");
            }
            built = String::from_utf8_lossy(&told.stdout).lines().filter_map(test_program).collect();
        }
        Ok(Self { target: root.join("target/debug"), object, tests: built })
    }

    /// The object with the kernel side.
    pub fn object(&self) -> &Path {
        &self.object
    }

    /// The program that loads every program of the object.
    pub fn loader(&self) -> PathBuf {
        self.target.join("load")
    }

    /// Makes a disk of all that and a script: an archive, unpacked under /lab.
    pub fn disk(&self, store: &Store, name: &str, script: &str) -> Result<PathBuf> {
        let stage = store.path(&format!("stage-{name}"));
        remove(&stage)?;
        // As cargo lays it out: a test looks for programs beside itself.
        let debug = stage.join("target/debug");
        make_dir(&debug.join("deps"))?;
        for program in PROGRAMS {
            strip(&self.target.join(program), &debug.join(program))?;
        }
        for (test, program) in &self.tests {
            strip(program, &debug.join("deps").join(test))?;
        }
        fs::copy(&self.object, stage.join("object"))
            .with_context(|| format!("cannot copy {}", self.object.display()))?;
        fs::write(stage.join("script"), script).context("cannot write the script")?;
        let disk = store.path(&format!("{name}.tar"));
        output(Command::new("tar").arg("-C").arg(&stage).arg("-cf").arg(&disk).arg("."))?;
        remove(&stage)?;
        Ok(disk)
    }
}

/// Copies a program without what only a debugger reads: most of it.
fn strip(from: &Path, to: &Path) -> Result<()> {
    Ok(output(Command::new("strip").args(["--strip-debug", "-o"]).arg(to).arg(from)).map(drop)?)
}

/// The name and the program of a test, out of what cargo tells of a build: a JSON object a line.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let value = |key: &str| {
        let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let (_, target) = line.split_once("\"target\":{\"kind\":[\"test\"]")?;
    let (_, rest) = target.split_once("\"name\":\"")?;
    let name = rest.split_once('"').map(|(name, _)| name.to_owned())?;
    Some((name, value("executable")?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_among_what_cargo_built() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/tests#0.1.0","target":{"kind":["test"],"crate_types":["bin"],"name":"packets","src_path":"/w/tests/tests/packets.rs"},"executable":"/w/target/debug/deps/packets-1f","fresh":true}"#;
        assert_eq!(test_program(line), Some(("packets".to_owned(), "/w/target/debug/deps/packets-1f".into())));
        assert_eq!(test_program(&line.replace(r#"["test"]"#, r#"["lib"]"#)), None);
    }
}
