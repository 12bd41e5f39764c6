//! Connections through a published port, segment by segment, and what their flow is to be after each: run by the host's build of
//! the decisions and by the verified programs.

use super::{ACK, FIN, PacketBuilder, RST, SYN, tcp};

/// Whose segment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client outside.
    Client,
    /// The published container's.
    Server,
}

use By::{Client, Server};

/// What is remembered of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// No end.
    Nothing,
    /// A FIN.
    Fin,
    /// A reset.
    Rst,
    /// Both of them.
    Both,
}

use Said::{Both, Fin, Nothing, Rst};

/// A segment, and what is remembered of client and server after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Whose it is.
    pub by: By,
    flags: u8,
    /// Relative to the sender's initial sequence number, and to the other one's.
    seq: u32,
    ack: u32,
    window: u16,
    len: usize,
    options: &'static [u8],
    /// Of the client, and of the server.
    pub after: (Said, Said),
}

/// The window scale option, padded: a factor of 128; and the largest factor.
const SCALE_7: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7];
const SCALE_14: &[u8] = &[1, 1, 4, 2, 3, 3, 14, 0];
const NO_SCALE: &[u8] = &[2, 4, 5, 0xb4];

fn step(by: By, flags: u8, seq: u32, ack: u32, after: (Said, Said)) -> Step {
    Step { by, flags, seq, ack, window: 502, len: 0, options: &[], after }
}

impl Step {
    fn len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    fn options(mut self, options: &'static [u8]) -> Self {
        self.options = options;
        self
    }

    /// The segment as its sender sends it, where the client is `client` and the server is known to the sender as `server`.
    pub fn segment(
        &self,
        bases: [u32; 2],
        (client, cport): (&str, u16),
        (server, sport): (&str, u16),
    ) -> PacketBuilder {
        let [own, other] = if self.by == Client { bases } else { [bases[1], bases[0]] };
        let p = if self.by == Client {
            tcp(client, cport, server, sport, self.flags)
        } else {
            tcp(server, sport, client, cport, self.flags)
        };
        // A refusal of what nothing is known of has the number 0, and where ACK is not set the field is 0.
        let ack = if self.flags & ACK != 0 { other.wrapping_add(self.ack) } else { 0 };
        let seq = if self.seq == REFUSAL { 0 } else { own.wrapping_add(self.seq) };
        p.sequence(seq).acknowledges(ack).window(self.window).payload(&vec![7; self.len]).tcp_options(self.options)
    }
}

/// Instead of a sequence number: 0, whatever the connection's are.
const REFUSAL: u32 = 0xdead_beef;

/// Initial sequence numbers of client and server to run each connection with: where they pass over zero and half of all, too.
pub const BASES: [[u32; 2]; 3] = [[1000, 5000], [0xffff_ffff, 0xffff_ff00], [0x7fff_ffff, 0x8000_0000 - 300]];

fn handshake(client: &'static [u8], server: &'static [u8]) -> Vec<Step> {
    let open = (Nothing, Nothing);
    vec![
        step(Client, SYN, 0, 0, open).window(64240).options(client),
        step(Server, SYN | ACK, 0, 1, open).window(65160).options(server),
        step(Client, ACK, 1, 1, open),
        step(Client, ACK, 1, 1, open).len(100),
        step(Server, ACK, 1, 101, open).len(200),
        step(Client, ACK, 101, 201, open),
    ]
}

/// After [`handshake`] with a factor of 128: the client is at 101, the server at 201, either offers 64,256 bytes at least.
fn established(rest: Vec<Step>) -> Vec<Step> {
    [handshake(SCALE_7, SCALE_7), rest].concat()
}

/// Every connection, by name.
pub fn connections() -> Vec<(&'static str, Vec<Step>)> {
    let open = (Nothing, Nothing);
    let far = 0x2000_0000;
    let mut all = vec![
        ("blind resets, then the client's own", {
            let mut steps: Vec<Step> = [0, 100, 102, 150, 64_000, 200_000, far, far * 3, far * 5, 0xffff_0000]
                .into_iter()
                .map(|seq| step(Client, RST, seq, 0, open))
                .collect();
            // The server's stack asks back, and goes on.
            steps.push(step(Server, ACK, 201, 101, open));
            steps.push(step(Server, ACK, 201, 101, open).len(50));
            steps.push(step(Client, RST, 101, 0, (Rst, Nothing)));
            established(steps)
        }),
        ("segments that their sender cannot have sent, and what would end it behind them", {
            let mut steps = vec![];
            for seq in [102, 150, 30_000, 64_000] {
                for window in [0, 502, 0xffff] {
                    // It acknowledges what nobody has sent.
                    steps.push(step(Client, ACK, seq, far * 3, open).window(window));
                    steps.push(step(Client, RST, seq, 0, open));
                    steps.push(step(Client, FIN | ACK, seq, far * 3, open).window(window));
                    steps.push(step(Client, RST, seq + 1, 0, open));
                }
            }
            steps.push(step(Server, ACK, 201, 101, open).len(50));
            steps.push(step(Client, ACK, 101, 251, open).len(9));
            steps.push(step(Client, RST, 110, 0, (Rst, Nothing)));
            established(steps)
        }),
        ("the server's own reset", {
            established(vec![
                step(Server, RST, 202, 0, open),
                step(Server, RST | ACK, 200, 101, open),
                step(Server, RST | ACK, 201, 101, (Nothing, Rst)),
            ])
        }),
        ("a reset behind data that is not acknowledged yet", {
            established(vec![
                step(Client, ACK, 101, 201, open).len(1000),
                step(Client, ACK, 1101, 201, open).len(30),
                step(Client, RST | ACK, 1130, 201, open),
                step(Client, RST | ACK, 1131, 201, (Rst, Nothing)),
            ])
        }),
        ("forged data, and a reset behind it", {
            established(vec![
                step(Client, ACK, far, 201, open).len(100),
                step(Client, RST, far + 100, 0, open),
                step(Client, ACK, 0xf000_0000, 201, open).len(100),
                step(Client, RST, 0xf000_0064, 0, open),
                step(Client, RST, 101, 0, (Rst, Nothing)),
            ])
        }),
        ("a reset after a FIN, in its place", {
            established(vec![
                step(Client, FIN | ACK, 101, 201, (Fin, Nothing)),
                step(Server, ACK, 201, 102, (Fin, Nothing)),
                step(Client, RST, 100, 0, (Fin, Nothing)),
                step(Client, RST, 101, 0, (Both, Nothing)),
            ])
        }),
        ("FINs out of the window, then true ones that cross", {
            established(vec![
                step(Client, FIN | ACK, 100_000, 201, open),
                step(Client, FIN | ACK, 50, 201, open),
                step(Client, FIN | ACK, far, 201, open).len(10),
                step(Client, FIN | ACK, far * 4, 201, open),
                step(Server, FIN | ACK, 100_000, 101, open),
                // The acknowledgements of the forged ones have changed nothing either.
                step(Client, FIN | ACK, 101, 201, (Fin, Nothing)).len(20),
                step(Server, FIN | ACK, 201, 101, (Fin, Fin)),
                step(Client, ACK, 122, 202, (Fin, Fin)),
                step(Server, ACK, 202, 122, (Fin, Fin)),
            ])
        }),
        ("half-closed for long", {
            established(vec![
                step(Client, FIN | ACK, 101, 201, (Fin, Nothing)),
                step(Server, ACK, 201, 102, (Fin, Nothing)).len(1000),
                step(Client, ACK, 102, 1201, (Fin, Nothing)),
                step(Client, FIN | ACK, 101, 1201, (Fin, Nothing)),
                step(Server, FIN | ACK, 1201, 102, (Fin, Fin)).len(7),
            ])
        }),
        ("blind SYNs, and a true reset", {
            established(vec![
                step(Client, SYN, 77, 0, open).options(SCALE_14),
                step(Server, ACK, 201, 101, open),
                step(Client, SYN, far, 0, open),
                step(Server, ACK, 201, 101, open),
                // Nobody has asked that, and the next segments are measured by the old factor.
                step(Server, SYN | ACK, 201, 100, open).options(SCALE_14),
                step(Client, ACK, 101, 201, open).len(10),
                step(Client, FIN | ACK, 80_000, 201, open),
                step(Client, RST, 111, 0, (Rst, Nothing)),
            ])
        }),
        ("a SYN of the ports of what is closed begins anew", {
            established(vec![
                step(Client, FIN | ACK, 101, 201, (Fin, Nothing)),
                step(Server, FIN | ACK, 201, 102, (Fin, Fin)),
                step(Client, ACK, 102, 202, (Fin, Fin)),
                step(Client, SYN, far, 0, open).options(SCALE_7),
                step(Server, SYN | ACK, far, far, open).options(SCALE_7),
                step(Server, SYN | ACK, far, far + 1, open).options(SCALE_7),
                step(Client, ACK, far + 1, far + 1, open).len(5),
                step(Server, ACK, far + 1, far + 6, open),
                step(Client, RST, 102, 0, open),
                step(Client, RST, far + 6, 0, (Rst, Nothing)),
            ])
        }),
        ("keepalives", {
            established(vec![
                step(Client, ACK, 100, 201, open),
                step(Server, ACK, 201, 101, open),
                step(Client, ACK, 100, 201, open).len(1),
                step(Server, ACK, 201, 101, open),
                step(Server, ACK, 200, 101, open),
                step(Client, ACK, 101, 201, open),
                step(Client, RST | ACK, 100, 201, open),
                step(Server, RST | ACK, 201, 101, (Nothing, Rst)),
            ])
        }),
        ("a window that closes and opens", {
            established(vec![
                step(Server, ACK, 201, 101, open).window(0),
                step(Client, ACK, 100, 201, open),
                step(Server, ACK, 201, 101, open).window(0),
                step(Client, ACK, 101, 201, open).len(1),
                step(Server, ACK, 201, 101, open).window(0),
                step(Server, ACK, 201, 101, open).window(502),
                step(Client, ACK, 101, 201, open).len(1000),
                step(Server, ACK, 201, 1101, open).window(0),
                step(Client, RST | ACK, 1101, 201, (Rst, Nothing)),
            ])
        }),
        ("what is sent again, and what comes late", {
            established(vec![
                step(Client, ACK, 101, 201, open).len(500),
                step(Client, ACK, 601, 201, open).len(500),
                step(Server, ACK, 201, 1101, open),
                step(Client, ACK, 101, 201, open).len(500),
                step(Server, ACK, 201, 601, open),
                step(Server, ACK, 201, 101, open).len(10),
                // The highest acknowledgement counts, not the last.
                step(Client, RST, 601, 0, open),
                step(Client, RST, 101, 0, open),
                step(Client, RST, 1101, 0, (Rst, Nothing)),
            ])
        }),
        ("acknowledgements of what nobody has sent", {
            established(vec![
                step(Client, ACK, 101, 90_000, open),
                step(Client, ACK, 101, far, open).len(10),
                step(Client, ACK, 101, far * 6, open),
                step(Server, RST | ACK, 201, 101, (Nothing, Rst)),
            ])
        }),
        ("refused, not by whoever guesses", {
            vec![
                step(Client, SYN, 0, 0, open).window(64240).options(SCALE_7),
                step(Server, RST | ACK, REFUSAL, 0, open),
                step(Server, RST | ACK, REFUSAL, far, open),
                step(Server, RST | ACK, REFUSAL, 1, (Nothing, Rst)),
            ]
        }),
        ("reset at once", {
            let mut steps = handshake(SCALE_7, SCALE_7);
            steps.truncate(3);
            steps.push(step(Client, RST, 0, 0, open));
            steps.push(step(Client, RST | ACK, 1, 1, (Rst, Nothing)));
            steps
        }),
        ("the answer to a SYN comes again", {
            let mut steps = handshake(SCALE_7, SCALE_7);
            steps.insert(3, steps[1].clone());
            steps.push(step(Server, FIN | ACK, 100_000, 101, open));
            steps.push(step(Server, FIN | ACK, 201, 101, (Nothing, Fin)));
            steps
        }),
        ("picked up in the middle", {
            vec![
                step(Client, ACK, 101, 201, open).len(100),
                step(Server, ACK, 201, 201, open).len(50),
                step(Client, ACK, 201, 251, open),
                step(Client, RST, 150, 0, open),
                step(Client, RST, far, 0, open),
                step(Client, RST, 201, 0, (Rst, Nothing)),
            ]
        }),
        ("picked up by a forged segment: it finds its way", {
            vec![
                step(Client, ACK, far * 6, far * 3, open),
                step(Server, ACK, 201, 101, open).len(50),
                step(Client, ACK, 101, 251, open).len(10),
                step(Server, ACK, 251, 111, open),
                step(Client, ACK, 111, 251, open),
                step(Server, RST, 252, 0, open),
                step(Server, RST, 251, 0, (Nothing, Rst)),
            ]
        }),
    ];
    // The edge of the window by what the handshake has agreed on: FINs just within, and one byte beyond. Who asks for no factor gets
    // none, and who is offered none has none.
    for (name, client, server, edge, clients) in [
        ("a factor of 128", SCALE_7, SCALE_7, 65_160, 502 << 7),
        ("no factor asked for", NO_SCALE, SCALE_7, 65_160, 502),
        ("a factor not agreed on", SCALE_14, NO_SCALE, 65_160, 502),
        ("the largest factor", SCALE_7, SCALE_14, 502 << 14, 502 << 7),
    ] {
        let beyond = vec![
            step(Client, FIN | ACK, 101 + edge, 201, open),
            step(Client, FIN | ACK, 100 + edge, 201, (Fin, Nothing)),
            step(Server, FIN | ACK, 201 + clients, 101, (Fin, Nothing)),
            step(Server, FIN | ACK, 200 + clients, 101, (Fin, Fin)),
        ];
        all.push((name, [handshake(client, server), beyond].concat()));
    }
    all
}
