//! `runtime down`: leaves nothing behind.

use clap::Args;
use runtime_api::{Down, SOCKET_NAME};

use super::{Failure, Globals};
use crate::daemon::{DaemonLock, VERIFIER_LOG};
use crate::datapath::{Pins, remove_everything};

#[derive(Debug, Args)]
pub(super) struct DownArgs {}

pub(super) async fn run(_: DownArgs, globals: &Globals) -> Result<(), Failure> {
    match globals.datapath().call(Down).await {
        Ok(()) => {}
        // A daemon that was killed leaves its datapath at work: that goes too.
        Err(e) if e.is_absence() => {
            let _lock = DaemonLock::take(&globals.run_dir).map_err(anyhow::Error::from)?;
            let pins = Pins::new(&globals.bpffs);
            // Of a daemon with another run directory.
            let _pins = pins.lock().map_err(anyhow::Error::from)?;
            remove_everything(&pins).map_err(anyhow::Error::from)?;
        }
        Err(e) => return Err(e.into()),
    }
    for file in [SOCKET_NAME, "runtime.pid", "runtime.log", VERIFIER_LOG] {
        let _ = std::fs::remove_file(globals.run_dir.join(file));
    }
    // Only where nothing else is in it.
    let _ = std::fs::remove_dir(&globals.run_dir);
    Ok(())
}
