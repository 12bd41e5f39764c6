//! What rtnetlink knows of programs on interfaces: clsact qdiscs and the filters in them, and XDP.
//!
//! One question after the other, by whoever asks: within an asynchronous runtime or without.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use crate::failpoint;

/// Before all filters that others add without saying where.
const PRIORITY: u32 = 1;
/// One that no other tool is likely to use.
const HANDLE: TcHandle = TcHandle { major: 0x5254, minor: 1 };
/// Filters see every protocol.
const ETH_P_ALL: u16 = 3;
const CLSACT: &str = "clsact";

/// A side of an interface that filters stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl Side {
    fn parent(self) -> TcHandle {
        let minor = match self {
            Side::Ingress => TcHandle::MIN_INGRESS,
            Side::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// A filter with a program, at the place that is this datapath's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program's name.
    pub name: String,
    /// The program's number in the kernel.
    pub program: u32,
}

/// How a device runs its XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAt {
    /// In the driver, or in the device itself.
    Native,
    /// In the kernel's generic layer.
    Generic,
}

/// A conversation with the kernel.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// In the network namespace of the caller.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        Ok(Rtnl { socket, sequence: 0 })
    }

    /// Interfaces that have a clsact qdisc.
    pub fn clsact_interfaces(&mut self) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        self.ask(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer
                && kind(&qdisc) == Some(CLSACT)
            {
                found.insert(qdisc.header.index as u32);
            }
        })?;
        Ok(found)
    }

    /// Makes a clsact qdisc; false where there is one.
    pub fn add_clsact(&mut self, ifindex: u32) -> Result<bool> {
        failpoint::step();
        let mut message = qdisc(ifindex);
        message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
        let made =
            self.ask(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, drop);
        match made {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Removes a clsact qdisc, unless there are filters in it.
    pub fn remove_empty_clsact(&mut self, ifindex: u32) -> Result<()> {
        for side in [Side::Ingress, Side::Egress] {
            let mut empty = true;
            self.ask_filters(ifindex, side, |_| empty = false)?;
            if !empty {
                return Ok(());
            }
        }
        self.ask(RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex)), NLM_F_ACK, drop)
    }

    /// The filter at this datapath's own place, if there is one.
    pub fn filter(&mut self, ifindex: u32, side: Side) -> Result<Option<Filter>> {
        let mut found = None;
        self.ask_filters(ifindex, side, |filter| {
            if filter.header.handle == HANDLE && filter.header.info >> 16 == PRIORITY {
                let options = filter.attributes.iter().filter_map(|a| match a {
                    TcAttribute::Options(options) => Some(options),
                    _ => None,
                });
                let (mut name, mut program) = (String::new(), 0);
                for option in options.flatten() {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(n)) => name.clone_from(n),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program = *id,
                        _ => {}
                    }
                }
                found = Some(Filter { name, program });
            }
        })?;
        Ok(found)
    }

    /// Puts a program at this datapath's own place, instead of one that is there: without a moment between.
    pub fn set_filter(&mut self, ifindex: u32, side: Side, name: &str, program: BorrowedFd<'_>) -> Result<()> {
        failpoint::step();
        let mut message = filter(ifindex, side);
        let bpf = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
            TcFilterBpfOption::ProgName(name.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        message.attributes.push(TcAttribute::Options(bpf.map(TcOption::Bpf).into()));
        self.ask(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_ACK | NLM_F_CREATE, drop)
    }

    /// Removes the filter at this datapath's own place.
    pub fn remove_filter(&mut self, ifindex: u32, side: Side) -> Result<()> {
        failpoint::step();
        self.ask(RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, side)), NLM_F_ACK, drop)
    }

    /// The XDP programs of all interfaces, or of one: how they run, and their numbers in the kernel.
    pub fn xdp(&mut self, ifindex: Option<u32>) -> Result<BTreeMap<u32, (XdpAt, u32)>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex.unwrap_or_default();
        let flags = if ifindex.is_some() { NLM_F_ACK } else { NLM_F_DUMP };
        let mut found = BTreeMap::new();
        self.ask(RouteNetlinkMessage::GetLink(message), flags, |answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else { return };
            let attributes = link.attributes.iter().filter_map(|a| match a {
                LinkAttribute::Xdp(attributes) => Some(attributes),
                _ => None,
            });
            let (mut at, mut program) = (None, 0);
            for attribute in attributes.flatten() {
                match attribute {
                    LinkXdp::Attached(XdpAttached::SocketBuffer) => at = Some(XdpAt::Generic),
                    LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => at = Some(XdpAt::Native),
                    LinkXdp::ProgId(id) => program = *id,
                    _ => {}
                }
            }
            if let Some(at) = at {
                found.insert(link.header.index, (at, program));
            }
        })?;
        Ok(found)
    }

    fn ask_filters(&mut self, ifindex: u32, side: Side, mut hear: impl FnMut(TcMessage)) -> Result<()> {
        let mut message = TcMessage::with_index(ifindex as i32);
        message.header.parent = side.parent();
        self.ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP, |answer| {
            // Beside each filter there is a message for the table that holds those of its priority.
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer
                && filter.header.handle != TcHandle::UNSPEC
            {
                hear(filter);
            }
        })
    }

    /// Asks, and hears everything that is answered.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut hear: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some(length) = rest.first_chunk::<4>().map(|l| u32::from_ne_bytes(*l) as usize) {
                let this = rest.get(..length).ok_or_else(|| Error::other("a message of netlink is cut short"))?;
                rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
                // What is not understood is none of what was asked for: of a qdisc or filter of another kind.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(this) else { continue };
                match message.payload {
                    NetlinkPayload::InnerMessage(m) => hear(m),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    _ => {}
                }
            }
        }
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|a| match a {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

fn qdisc(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message
}

fn filter(ifindex: u32, side: Side) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index: ifindex as i32,
        handle: HANDLE,
        parent: side.parent(),
        info: PRIORITY << 16 | u32::from(ETH_P_ALL.to_be()),
        ..TcHeader::default()
    };
    message
}
