//! What the datapath decided about a packet, and why.

use core::fmt;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Translated or redirected by the datapath itself.
    Forward,
    /// Left to the host's network stack.
    Pass,
    /// Thrown away.
    Drop,
}

impl Kind {
    /// The word in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Forward => "forward",
            Kind::Pass => "pass",
            Kind::Drop => "drop",
        }
    }
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $kind:ident, $name:literal, $text:literal;)+) => {
        /// A decision with its reason: the one vocabulary of counters, events, command line and docs.
        ///
        /// The numbers are stable: `bpftool map dump name COUNTERS` shows them as keys.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Verdict {
            /// Every verdict, in the order of their numbers.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$variant,)+];

            /// The name in counters, events and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Verdict::$variant => $text,)+ }
            }

            /// What becomes of the packet.
            pub const fn kind(self) -> Kind {
                match self { $(Verdict::$variant => Kind::$kind,)+ }
            }
        }
    };
}

verdicts! {
    /// To a container through a publication.
    Published = 0, Forward, "published", "sent to a container through a published port";
    /// A container's answer through a publication.
    PublishedReply = 1, Forward, "published_reply", "a container's answer through a published port";
    /// From a recipient to a source.
    Linked = 2, Forward, "linked", "sent from a recipient to a source over a link";
    /// From a source back to a recipient.
    LinkedReply = 3, Forward, "linked_reply", "a source's answer over a link";
    /// To the host itself, or traffic that is none of ours.
    Host = 4, Pass, "host", "left to the host";
    /// From the host to a container.
    FromHost = 5, Pass, "from_host", "sent to a container by the host itself";
    /// From a container to the outside, through the host's stack.
    Outbound = 6, Pass, "outbound", "a container's own conversation with the outside";
    /// The outside's answer to a container.
    OutboundReply = 7, Pass, "outbound_reply", "an answer to a container's own conversation";
    /// To or from a container of a network that is not isolated: the engine's own rules decide.
    Network = 8, Pass, "network", "to or from a container of a network that is not isolated";
    /// ARP or neighbour discovery.
    Neighbour = 9, Pass, "neighbour", "address resolution";
    /// Broadcast or multicast of a container towards the host; other containers' gates decide for themselves.
    Multicast = 10, Pass, "multicast", "broadcast or multicast towards the host";
    /// A conversation older than the datapath, left to the rules that carry it.
    Preexisting = 11, Pass, "preexisting", "a conversation that older rules carry";
    /// A host process's socket, sent to a container.
    HostRedirected = 12, Forward, "host_redirected", "a host process's socket redirected to a container through a published port";
    /// From a container to the outside, under the host's address.
    Masqueraded = 13, Forward, "masqueraded", "a container's own conversation, sent out under the host's address";
    /// The outside's answer to that.
    MasqueradedReply = 14, Forward, "masqueraded_reply", "an answer to a conversation under the host's address";
    /// The first packets of a conversation with a publication, which the host's firewall has not let through yet.
    Deferred = 15, Pass, "deferred", "the beginning of a conversation with a published port, left to the host's firewall to let through";
    /// From outside by an interface without a program, where the engine's own rules decide.
    Unserved = 16, Pass, "unserved", "came in by an interface that is not served: the engine's own rules decide";

    /// Headers that contradict themselves or end too early.
    Malformed = 32, Drop, "malformed", "headers contradict themselves or end too early";
    /// A fragment whose first fragment is not known.
    Fragment = 33, Drop, "fragment", "a fragment that cannot be assigned to a flow";
    /// An EtherType other than what IP needs, between containers.
    EtherType = 34, Drop, "ethertype", "an EtherType other than IPv4, IPv6 and ARP from a container";
    /// The interface's container is not known (yet), or that of the interface by which it came over the bridge.
    EndpointClosed = 35, Drop, "endpoint_closed", "to or from an interface whose container is not known yet";
    /// A source MAC address other than the container's.
    SpoofedMac = 36, Drop, "spoofed_mac", "a source MAC address that is not the container's";
    /// A source address other than the container's.
    SpoofedAddress = 37, Drop, "spoofed_address", "a source address that is not the container's";
    /// From outside, with a container's or the host's own address as source.
    SpoofedLocal = 38, Drop, "spoofed_local", "from outside, but with an address of this host or its containers as source";
    /// To or from a loopback address, on an interface.
    Loopback = 39, Drop, "loopback", "a loopback address on a network interface";
    /// No link allows it.
    NotLinked = 40, Drop, "not_linked", "no link allows this container to reach that one";
    /// Neither a publication nor a flow allows it.
    NotPublished = 41, Drop, "not_published", "from outside to a container, and nothing published allows it";
    /// To a container on another network.
    OtherNetwork = 42, Drop, "other_network", "to a container on another network";
    /// The publication was taken away.
    Unpublished = 43, Drop, "unpublished", "the port is no longer published";
    /// The flow's publication, link or container is gone.
    FlowEnded = 44, Drop, "flow_ended", "the conversation's publication, link or container is gone";
    /// The flow table has no room.
    FlowTableFull = 45, Drop, "flow_table_full", "the flow table has no room";
    /// Out of hops.
    TtlExceeded = 46, Drop, "ttl_exceeded", "its time to live ran out here";
    /// Larger than the way out allows.
    TooBig = 47, Drop, "too_big", "larger than the MTU of its way out";
    /// No way to the destination.
    NoRoute = 48, Drop, "no_route", "the host has no route to its destination";
    /// A protocol that cannot be followed between containers.
    ProtocolUnsupported = 49, Drop, "protocol_unsupported", "a protocol that links and publications do not carry";
    /// An ICMP error about something that is no flow, or that cannot be true of one.
    IcmpError = 50, Drop, "icmp_error", "an ICMP error that belongs to no conversation of its target, or does not fit it";
    /// A packet could not be rewritten.
    RewriteFailed = 51, Drop, "rewrite_failed", "the kernel refused to rewrite the packet";
    /// A TCP segment of no known conversation.
    NoFlow = 52, Drop, "no_flow", "a segment of no known conversation";
    /// A router advertisement, a redirect, or a query for multicast listeners from a container.
    RouterMessage = 53, Drop, "router_message", "what routers alone have to say, from a container, which is none";
    /// A neighbour solicitation to one neighbour about the address of another.
    NeighbourTarget = 54, Drop, "neighbour_target", "a neighbour solicitation to one neighbour about another one's address";
    /// Every source port tried is another conversation's.
    PortsExhausted = 55, Drop, "ports_exhausted", "no source port was found by which its answers could be told from others'";
    /// To an address of an isolated network that is no known container's.
    UnknownEndpoint = 57, Drop, "unknown_endpoint", "to an address of an isolated network that is no known container's";
    /// An option of neighbour discovery that its message does not need.
    NeighbourOption = 58, Drop, "neighbour_option", "a neighbour discovery message with an option that it does not need";
    /// An address that no packet may have.
    Martian = 59, Drop, "martian", "an address that no machine has: multicast, broadcast, unspecified, or one of IPv4 in IPv6";
    /// The publication's source filter refuses the client.
    Filtered = 60, Drop, "filtered", "the published port's filter refuses this source";
    /// More conversations than the publication's limit allows.
    RateLimited = 61, Drop, "rate_limited", "more new conversations than the published port's limit allows";
    /// Its publication, container or source has as many conversations as leave others room.
    ShareSpent = 62, Drop, "share_spent", "a new connection beyond the share of the flow table that its published port, container or source has";
}

/// Room for every verdict's number, and for more to come.
pub const VERDICT_SLOTS: usize = 64;

impl Verdict {
    /// Whether it is a drop: those are numbered from 32 on.
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self as u32 >= 32
    }

    /// The verdict with that number.
    pub fn from_number(n: u32) -> Option<Verdict> {
        Verdict::ALL.iter().copied().find(|v| *v as u32 == n)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_fit_the_counters() {
        for (i, v) in Verdict::ALL.iter().enumerate() {
            assert!((*v as usize) < VERDICT_SLOTS);
            assert_eq!(Verdict::from_number(*v as u32), Some(*v));
            for w in &Verdict::ALL[i + 1..] {
                assert_ne!(v.name(), w.name());
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "searches a long text, for minutes, and nothing in it is unsafe")]
    fn the_docs_have_the_same_table() {
        let docs = include_str!("../../docs/looking-inside.md");
        for v in Verdict::ALL {
            let row = format!("| {} | `{}` | {} | {} |", *v as u32, v.name(), v.kind().name(), v.text());
            assert!(docs.contains(&row), "docs/looking-inside.md lacks: {row}");
        }
    }

    #[test]
    fn drops_are_numbered_from_32() {
        for v in Verdict::ALL {
            assert_eq!(v.kind() == Kind::Drop, v.is_drop(), "{v}");
        }
    }
}
