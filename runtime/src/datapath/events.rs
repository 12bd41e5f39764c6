//! Drops as the kernel side tells of them.

use aya::maps::{Map, MapData, RingBuf};
use runtime_api::DropEvent;
use runtime_common::maps::Event;
use runtime_common::{Protocol, Verdict};
use tokio::io::unix::AsyncFd;

use super::{DatapathError, map_error};

/// What the kernel tells of a drop, in words; none of a verdict that is not known.
fn described(e: &Event) -> Option<DropEvent> {
    let protocol = match (Protocol::from_number(e.protocol), e.protocol) {
        (Some(p), _) => p.name().to_owned(),
        (None, 1 | 58) => "icmp".to_owned(),
        (None, n) => n.to_string(),
    };
    Some(DropEvent {
        verdict: Verdict::from_number(e.verdict)?.name().to_owned(),
        ifindex: e.ifindex,
        src: e.tuple.src.to_ip(),
        sport: u16::from_be(e.tuple.sport),
        dst: e.tuple.dst.to_ip(),
        dport: u16::from_be(e.tuple.dport),
        protocol,
    })
}

/// A stream of drops.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn new(map: Map) -> Result<Self, DatapathError> {
        let ring = RingBuf::try_from(map).map_err(|e| map_error("EVENTS", &e))?;
        // SAFETY: the ring keeps its descriptor open for as long as it lives, and gives no other one.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|e| map_error("EVENTS", &e))?;
        Ok(Events { ring })
    }

    /// Waits for drops and returns those that are there.
    pub async fn next(&mut self) -> Vec<DropEvent> {
        let mut found = Vec::new();
        while found.is_empty() {
            let Ok(mut guard) = self.ring.readable_mut().await else {
                return std::future::pending().await;
            };
            let ring = guard.get_inner_mut();
            while let Some(item) = ring.next() {
                if item.len() == size_of::<Event>() {
                    // SAFETY: as long as an `Event`, which is plain data; the ring aligns to eight bytes at least, and an
                    // unaligned read asks for nothing.
                    let event = unsafe { item.as_ptr().cast::<Event>().read_unaligned() };
                    found.extend(described(&event));
                }
            }
            guard.clear_ready();
        }
        found
    }
}
