//! The clsact qdisc that filters need on kernels without tcx: made where there is none, and removed by who made it.

use std::path::{Path, PathBuf};

use aya::programs::SchedClassifier;
use aya::programs::tc::qdisc_add_clsact;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::TcHandle;

use super::Pins;

/// Beginning of the pins that mark interfaces whose qdisc is of this datapath's making.
const MARK: &str = "clsact_qdisc";

fn mark(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{MARK}-{ifindex}"))
}

/// The interface that a pin marks, if it is such a mark.
pub fn marked(path: &Path) -> Option<u32> {
    let (name, ifindex) = path.file_name()?.to_str()?.rsplit_once('-')?;
    if name == MARK { ifindex.parse().ok() } else { None }
}

/// Makes the qdisc where there is none. Any pin can be the mark, so it is the program's.
pub fn make(
    pins: &Pins,
    program: &mut SchedClassifier,
    ifindex: u32,
    name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    // Failing means that it is there, of a predecessor or of another tool; or that filters will fail, which will be told.
    if qdisc_add_clsact(name).is_ok() {
        let mark = mark(pins, ifindex);
        // Of an interface that had this index before.
        let _ = std::fs::remove_file(&mark);
        program.pin(&mark)?;
    }
    Ok(())
}

/// Removes the qdisc of a marked interface, unless others have put filters there, and the mark.
pub fn remove(path: &Path, ifindex: u32) -> std::io::Result<()> {
    // In a thread of its own: the caller may be asynchronous itself, or not at all.
    let result = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(remove_if_empty(ifindex as i32)).map_err(std::io::Error::other)
    });
    // An interface that is gone has taken its qdisc along.
    let _ = result.join();
    std::fs::remove_file(path)
}

async fn remove_if_empty(ifindex: i32) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|e| rtnetlink::Error::NamespaceError(e.to_string()))?;
    tokio::spawn(connection);
    let ingress: Vec<_> = handle.traffic_filter(ifindex).get().ingress().execute().try_collect().await?;
    let egress: Vec<_> = handle.traffic_filter(ifindex).get().egress().execute().try_collect().await?;
    if !ingress.is_empty() || !egress.is_empty() {
        return Ok(());
    }
    let mut request = handle.qdisc().del(ifindex);
    request.message_mut().header.parent = TcHandle::CLSACT;
    request.message_mut().header.handle = TcHandle { major: 0xffff, minor: 0 };
    request.execute().await
}
