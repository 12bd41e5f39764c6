//! The packages of an Engine, with all that they depend on.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Engine, Error, FileError, Source};
use crate::debian::{self, Suite};

/// The packages of an Engine, downloaded into `dir/debs` where they are not there yet.
pub(super) fn fetch(engine: Engine, source: &Source, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let debs = dir.join("debs");
    let complete = dir.join("debs.complete");
    let recipe = source.recipe();
    if !fs::read_to_string(&complete).is_ok_and(|text| text == recipe) {
        eprintln!("the lab: downloading the Engine {engine} of Debian's {} into {}", source.suite, dir.display());
        // What an earlier recipe left would be unpacked too.
        super::remove(&debs)?;
        download(engine, source, &dir.join("apt"), &debs)?;
        fs::write(&complete, recipe).map_err(FileError::file(&complete))?;
    }
    debian::debs_in(&debs).map_err(Error::debian(engine))
}

fn download(engine: Engine, source: &Source, state: &Path, debs: &Path) -> Result<(), Error> {
    let of_engine = Error::debian(engine);
    let suite = Suite::fetch(source.suite, state.to_owned()).map_err(&of_engine)?;
    let found = suite.version(source.package).map_err(&of_engine)?.unwrap_or_else(|| "nothing".to_owned());
    // Debian's versions may begin with an epoch.
    let upstream = found.split_once(':').map_or(found.as_str(), |(_, rest)| rest);
    if !upstream.starts_with(source.version) {
        return Err(Error::MovedOn {
            engine,
            package: source.package,
            wanted: source.version,
            suite: source.suite,
            found,
        });
    }
    suite.download(&source.packages(), true, debs).map_err(&of_engine)?;
    super::remove(state)
}
