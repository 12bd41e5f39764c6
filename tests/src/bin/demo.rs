//! A walk through published ports and links on a real Docker host in namespaces: what is tried, and what happens.
//!
//! Arguments go to `runtime up`, such as `--xdp native`. The exit status is 1 when something went otherwise than expected.

use std::process::ExitCode;
use std::time::Duration;

use tests::frames::{Way, Wire};
use tests::sockets::{Talk, ask_once, http_get, serve};
use tests::{CLIENT, CLIENT2, Container, Counters, HOST, Image, Lab, wait_for};

const SOON: Duration = Duration::from_secs(10);

/// What is to come of an attempt.
#[derive(Clone, Copy)]
enum Expected {
    /// It succeeds, and the datapath forwards it.
    Allowed,
    /// It fails, and the datapath drops packets for this reason.
    Refused(&'static str),
    /// It fails, and a reset that the datapath carries says so.
    Told,
    /// It succeeds; the datapath has no part in it.
    Done,
}

/// An attempt: what it came to in words, or why it failed.
type Outcome = Result<String, String>;

struct Row {
    tried: String,
    expected: String,
    happened: String,
    counted: String,
    right: bool,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Tries something, and notes what was expected, what happened and what the datapath counted.
    fn attempt(&mut self, lab: &Lab, tried: &str, expected: Expected, action: impl FnOnce() -> Outcome) {
        let before = lab.counters();
        let outcome = action();
        // The drop of a packet may be counted a moment after the sender has given up on it.
        let counted = |reason: &str| lab.counters().packets(reason) > before.packets(reason);
        if let Expected::Refused(reason) = expected {
            let _ = wait_for(Duration::from_secs(1), || counted(reason).then_some(()));
        }
        let counted = lab.counters().since(&before).decided();
        self.note(tried, expected, outcome, &counted);
    }

    fn note(&mut self, tried: &str, expected: Expected, outcome: Outcome, counted: &Counters) {
        let right = match expected {
            Expected::Allowed => outcome.is_ok() && counted.of_kind("forward") > 0,
            Expected::Refused(reason) => outcome.is_err() && counted.packets(reason) > 0,
            Expected::Told => outcome.is_err() && counted.of_kind("forward") > 0,
            Expected::Done => outcome.is_ok(),
        };
        let happened = match outcome {
            Ok(words) => format!("allowed: {words}"),
            Err(words) => format!("refused: {words}"),
        };
        let expected = match expected {
            Expected::Allowed => "allowed".to_owned(),
            Expected::Refused(reason) => format!("refused, {reason}"),
            Expected::Told => "ended by a reset".to_owned(),
            Expected::Done => "done".to_owned(),
        };
        let counted = counted.to_string();
        println!("    {} {tried}\n      {happened}\n      counted: {}", mark(right), or_none(&counted));
        self.rows.push(Row { tried: tried.to_owned(), expected, happened, counted, right });
    }

    fn print(&self) {
        let head = ["", "tried", "expected", "happened", "counted by the kernel programs"];
        let cells = |r: &Row| {
            [
                mark(r.right).to_owned(),
                r.tried.clone(),
                r.expected.clone(),
                r.happened.clone(),
                or_none(&r.counted).to_owned(),
            ]
        };
        let body: Vec<[String; 5]> = self.rows.iter().map(cells).collect();
        let width = |i: usize| body.iter().map(|r| r[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &[&str]| {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        };
        line(&head);
        line(&widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
        for row in &body {
            line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

fn mark(right: bool) -> &'static str {
    if right { "ok" } else { "NO" }
}

fn or_none(counted: &str) -> &str {
    if counted.is_empty() { "nothing" } else { counted }
}

fn step(title: &str, explanation: &str) {
    println!("\n==> {title}");
    for line in explanation.lines() {
        println!("    {}", line.trim());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if arguments.iter().any(|a| ["-h", "--help"].contains(a)) {
        println!(
            "usage: demo [ARGUMENTS OF runtime up]\n\nShows published ports and links on a Docker host in namespaces."
        );
        return ExitCode::SUCCESS;
    }
    let mut table = Table::default();
    walk(&mut table, &arguments);
    println!();
    table.print();
    let wrong = table.rows.iter().filter(|r| !r.right).count();
    println!("\n{} of {} attempts went as expected.", table.rows.len() - wrong, table.rows.len());
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn walk(table: &mut Table, arguments: &[&str]) {
    step(
        "A host with a Docker Engine, and two clients on its LAN",
        "All in network namespaces: the machine's own network is left alone. Images are made from its own programs.",
    );
    let lab = Lab::builder("the demo")
        .client2()
        .without_client_offloads()
        .images(&[Image::Postgres, Image::Webapp, Image::Echo])
        .build();
    println!("    host {HOST}, clients {CLIENT} and {CLIENT2}");

    step(
        "An echo server, published by Docker over TCP and UDP",
        "It says which address it sees. A client connects through Docker's own rules, and stays.",
    );
    lab.start("echo", &["-p", "7:7", "-p", "7:7/udp", "echo"]);
    let mut older = Talk::when_up(lab.client(), (HOST, 7));

    step(
        "runtime up",
        "Loads the kernel programs, attaches them to the uplink and to each container, and follows the Engine.",
    );
    let up = lab.up(arguments);
    for line in lab.runtime(["status"]).ok().lines().take(12) {
        println!("    | {line}");
    }

    let outcome = said(older.say(b"after up"), "an echo");
    table.note("the connection from before, under Docker's rules", Expected::Done, outcome, &Counters::default());
    for (name, ns, address) in [("client", lab.client(), CLIENT), ("client2", lab.client2(), CLIENT2)] {
        table.attempt(&lab, &format!("{name} -> echo over TCP, 1 MB"), Expected::Allowed, || {
            let mut talk = Talk::open(ns, (HOST, 7)).map_err(words)?;
            talk.transfer(1_000_000, |_| ()).map_err(words)?;
            sees(talk.seen().ip(), address)
        });
        table.attempt(&lab, &format!("{name} -> echo over UDP"), Expected::Allowed, || {
            sees(ask_once(ns, (HOST, 7), b"hello").map_err(words)?.0.ip(), address)
        });
    }

    let db = publications_and_links(table, &lab);
    live_changes(table, &lab);
    forged_frames(table, &lab, &db);

    step("kill -9 of the daemon", "The programs, maps and links are pinned: they go on. The next daemon adopts them.");
    let mut talk = Talk::when_up(lab.client(), (HOST, 7));
    up.kill();
    let outcome = said(talk.say(b"without a daemon"), "the connection goes on");
    let up = lab.up(arguments);
    table.attempt(&lab, "connection held over kill -9 and a new daemon", Expected::Allowed, || {
        outcome?;
        said(talk.say(b"adopted"), "it went on, and goes on under the next daemon")
    });

    step("runtime down", "Takes everything away. Docker's own rules carry on where they can.");
    up.stop();
    lab.down();
    let left = std::fs::read_dir(lab.pins()).map(Iterator::count).unwrap_or(0);
    let outcome = if left == 0 { Ok("no pin is left".to_owned()) } else { Err(format!("{left} pins are left")) };
    table.note("down", Expected::Done, outcome, &Counters::default());
    let outcome = said(talk.say(b"after down"), "Docker's rules picked it up");
    table.note("the same connection after down", Expected::Done, outcome, &Counters::default());
}

fn publications_and_links(table: &mut Table, lab: &Lab) -> Container {
    step(
        "A source `db`, a recipient `web` with -P and --link db:webdb, and a third container",
        "runtime run takes docker run's flags. PostgreSQL answers in db, a web server in web.",
    );
    let db = lab.run("db", &["postgres"]);
    let web = lab.run("web", &["-P", "--link", "db:webdb", "webapp"]);
    let third = lab.run("third", &["webapp"]);
    println!("    db is at {}, web at {}, third at {}", db.ip(), web.ip(), third.ip());
    let _ = wait_for(SOON, || query(&web).ok());

    let listed = lab.runtime(["port", "web", "5000"]).ok();
    println!("    runtime port web 5000 prints {}", listed.lines().next().unwrap_or_default());
    let port = listed.lines().next().and_then(|l| l.rsplit(':').next()?.parse().ok()).unwrap_or_default();
    table.attempt(lab, "client -> the host's published port of web", Expected::Allowed, || {
        http_get(lab.client(), (HOST, port)).map(|page| format!("page {page:?}")).map_err(words)
    });
    table.attempt(lab, "web -> ping webdb", Expected::Allowed, || {
        let done = web.exec(["ping", "-c", "1", "-W", "1", "webdb"]);
        if done.success() { Ok("a reply".to_owned()) } else { Err("no reply".to_owned()) }
    });
    table.attempt(lab, "web -> a query against PostgreSQL at webdb", Expected::Allowed, || query(&web));
    table.attempt(lab, "third -> PostgreSQL of db", Expected::Refused("not_linked"), || connect(&third, &db, 5432));
    table.attempt(lab, "db -> the web server of web", Expected::Refused("not_linked"), || connect(&db, &web, 5000));
    table.attempt(lab, "client -> db's own address", Expected::Refused("not_published"), || {
        lab.client().tcp(db.at(5432)).map(|_| "a connection".to_owned()).map_err(words)
    });

    step("db stops, a filler takes its address, db starts at another", "The alias, /etc/hosts and the link follow.");
    let before = db.ip();
    lab.move_container(&db);
    println!("    db was at {before}, and is at {}", db.ip());
    let _ = wait_for(SOON, || query(&web).ok());
    table.attempt(lab, "web -> webdb at its new address", Expected::Allowed, || query(&web));
    let filler = lab.container(&format!("filler-{}", before.octets()[3]));
    table.attempt(lab, "web -> who has the old address now", Expected::Refused("not_linked"), || {
        connect(&web, &filler, 5432)
    });
    db
}

fn live_changes(table: &mut Table, lab: &Lab) {
    step(
        "publish and unpublish on a running container",
        "No container is made anew, and what unpublish closes is closed at once.",
    );
    lab.runtime(["publish", "echo", "8001:7"]).ok();
    let mut talk = None;
    table.attempt(lab, "client -> the new publication", Expected::Allowed, || {
        talk = Some(Talk::open(lab.client(), (HOST, 8001)).map_err(words)?);
        Ok("an echo".to_owned())
    });
    table.attempt(lab, "the same connection when it is unpublished", Expected::Told, || {
        lab.runtime(["unpublish", "echo", "8001:7"]).ok();
        match &mut talk {
            Some(talk) => said(talk.hear_the_end(), "it goes on"),
            None => Ok("it never stood".to_owned()),
        }
    });

    step("link and unlink on running containers", "");
    let (third, echo) = (lab.container("third"), lab.container("echo"));
    table.attempt(lab, "third -> echo before the link", Expected::Refused("not_linked"), || connect(&third, &echo, 7));
    lab.runtime(["link", "third", "echo"]).ok();
    let mut talk = None;
    table.attempt(lab, "third -> echo under the link", Expected::Allowed, || {
        talk = Some(Talk::open(&third.ns(), echo.at(7)).map_err(words)?);
        Ok("an echo".to_owned())
    });
    table.attempt(lab, "the same connection when it is unlinked", Expected::Told, || {
        lab.runtime(["unlink", "third", "echo"]).ok();
        match &mut talk {
            Some(talk) => said(talk.hear_the_end(), "it goes on"),
            None => Ok("it never stood".to_owned()),
        }
    });
}

fn forged_frames(table: &mut Table, lab: &Lab, db: &Container) {
    step("Forged frames from a container", "Written to the wire by hand: another MAC, another address, no IP at all.");
    let third = lab.container("third");
    let wire = Wire::open(&third.ns(), "eth0");
    let own = Way { from_mac: third.ns().mac("eth0"), to_mac: db.ns().mac("eth0"), from: third.ip(), to: db.ip() };
    let forged = [
        ("another MAC address", "spoofed_mac", Way { from_mac: [2, 0, 0, 0, 0, 9], ..own }.syn(4000, 5432)),
        ("web's address", "spoofed_address", Way { from: lab.container("web").ip(), ..own }.syn(4000, 5432)),
        ("a frame that is no IP", "ethertype", own.ethernet(0x88b5, b"hello")),
    ];
    for (what, reason, frame) in forged {
        table.attempt(lab, &format!("third -> db from {what}"), Expected::Refused(reason), || {
            let inside = Wire::open(&db.ns(), "eth0");
            wire.send(&frame);
            match inside.find(Duration::from_millis(200), |f| f == frame) {
                Some(_) => Ok("it arrived".to_owned()),
                None => Err("it does not arrive".to_owned()),
            }
        });
    }
    let server = serve(lab.client(), &lab.dir().join("peer.log"), &["tcp:0.0.0.0:9"]);
    let mut talk = Talk::when_up(&third.ns(), (CLIENT, 9));
    let outcome = said(talk.say(b"hello"), "an echo");
    table.note("third -> a server outside, as Docker lets it", Expected::Done, outcome, &Counters::default());
    drop(server);
}

/// Asks PostgreSQL at `webdb` for a small sum.
fn query(from: &Container) -> Outcome {
    let question = "select 6 * 7";
    let done = from.exec(["timeout", "2", "psql", "-h", "webdb", "-U", "postgres", "-tAc", question]);
    if done.success() { Ok(format!("{question} = {}", done.ok())) } else { Err("no answer".to_owned()) }
}

fn connect(from: &Container, to: &Container, port: u16) -> Outcome {
    from.ns().tcp(to.at(port)).map(|_| "a connection".to_owned()).map_err(words)
}

fn sees(seen: std::net::IpAddr, address: std::net::Ipv4Addr) -> Outcome {
    if seen == address {
        Ok(format!("the server sees {seen}"))
    } else {
        Err(format!("the server sees {seen}, not {address}"))
    }
}

fn said(result: std::io::Result<()>, well: &str) -> Outcome {
    result.map(|()| well.to_owned()).map_err(words)
}

fn words(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "no answer".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "closed".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}
