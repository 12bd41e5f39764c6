//! Packets that nobody would send, many of them and always the same.

use runtime_common::maps::{Tuple, Zone};
use runtime_common::packet::{ICMP, ICMPV6, Message, TCP, UDP, arp_message, quoted};
use runtime_common::{Addr, Verdict};

use super::frame::{Frame, translate_to};
use super::world::*;
use packet_builder::*;

/// How many packets. Miri takes a thousand times longer for each: its run looks for undefined behaviour on the way, not for packets.
const ROUNDS: usize = if cfg!(miri) { 200 } else { 200_000 };

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn seeds() -> Vec<PacketBuilder> {
    let mut seeds = vec![];
    for (a, b) in [(CLIENT, HOST), (CLIENT6, HOST6), (WEB.0, DB.0), (WEB.1, DB.1), (WEB.0, HOST), (DB.1, CLIENT6)] {
        let syn = tcp(a, 4000, b, 80, SYN);
        seeds.push(unreachable(a, b, &tcp(b, 80, a, 4000, ACK)));
        seeds.push(syn.clone().payload(&[9; 40]).fragment(0, 24));
        seeds.push(syn.clone().payload(&[9; 40]).fragment(24, 16));
        seeds.push(syn);
        seeds.push(tcp(a, 80, b, 4000, ACK));
        seeds.push(udp(a, 4000, b, 53));
        seeds.push(udp_without_checksum(a, 53, b, 4000).options(&[1, 1, 1, 0]));
        seeds.push(sctp(a, 4000, b, 80));
        seeds.push(echo(a, b, true, 1));
        seeds.push(echo(a, b, false, 1));
        seeds.push(raw(a, b, 0));
    }
    seeds
}

#[test]
fn no_packet_upsets_parsing_deciding_or_translating() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut w = World::new();
    for host in ["0.0.0.0", "::"] {
        w.publish(host, 80, TCP, 8080, 9, 900);
        w.publish(host, 53, UDP, 53, 9, 900);
    }
    w.link(80, TCP, 10);
    w.link(0, ICMP, 10);
    w.link(0, ICMPV6, 10);
    let seeds: Vec<Vec<u8>> = seeds().iter().map(PacketBuilder::build).collect();
    let (mut read_at_all, mut translated, mut verdicts) = (0, 0, std::collections::HashSet::new());
    for round in 0..ROUNDS {
        let mut packet = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            let at = if random.below(2) == 0 { random.below(packet.len()) } else { random.below(packet.len().min(60)) };
            packet[at] = if random.below(2) == 0 { random.next() as u8 } else { packet[at] ^ (1 << random.below(8)) };
        }
        if random.below(4) == 0 {
            packet.truncate(14 + random.below(packet.len() - 13));
        }
        let _ = arp_message(&Frame(packet.clone()));
        for zone in [Zone::Uplink, Zone::Endpoint, Zone::Gate] {
            let mut h = match read(&packet, zone) {
                Ok(h) => h,
                Err(v) => {
                    assert_eq!(v, Verdict::Malformed);
                    continue;
                }
            };
            read_at_all += 1;
            let frame = Frame(packet.clone());
            let mut key = h.key;
            let _ = quoted(&frame, &h, &mut key);
            let which = round % 2;
            let decision = match zone {
                Zone::Uplink => runtime_common::decide::uplink(&frame, &w.tables, &mut h),
                Zone::Endpoint => {
                    let ep = &w.endpoints[which];
                    runtime_common::decide::endpoint(&frame, &w.tables, ep, 2 + which as u32, &mut h)
                }
                Zone::Gate => runtime_common::decide::gate(&frame, &w.tables, &w.endpoints[which], &mut h, 1),
            };
            verdicts.insert(decision.verdict());
            // Only whole packets whose sums were right before can have right ones afterwards.
            let whole = h.message != Message::LaterFragment && !h.first_fragment;
            let was_right = whole && sums_are_right(&packet).is_ok();
            let mut frame = frame;
            let to = Tuple {
                src: other_address(&mut random, h.v4),
                dst: other_address(&mut random, h.v4),
                sport: random.next() as u16,
                dport: random.next() as u16,
            };
            if translate_to(&mut frame, &h, &to).is_ok() && was_right {
                translated += 1;
                verify(&frame.0).unwrap_or_else(|e| panic!("{e}: {packet:02x?} became {:02x?}", frame.0));
            }
            assert_eq!(frame.0.len(), packet.len());
        }
    }
    // Or nothing was tried at all.
    assert!(read_at_all > ROUNDS, "{read_at_all}");
    assert!(translated > ROUNDS / 4, "{translated}");
    assert!(verdicts.len() > if cfg!(miri) { 8 } else { 15 }, "{verdicts:?}");
}

/// Whether the sums of a packet are right; never where the plain implementation cannot tell.
fn sums_are_right(packet: &[u8]) -> Result<(), String> {
    // Extension headers hide the protocol from the plain implementation.
    if packet[12] == 0x86 && !matches!(packet[20], 6 | 17 | 58 | 132) {
        return Err("not looked into".into());
    }
    verify(packet)
}

fn other_address(random: &mut Random, v4: bool) -> Addr {
    let word = random.next() as u32;
    if v4 { Addr::v4_word(word) } else { Addr::words([random.next() as u32, word, 0, u32::MAX]) }
}
