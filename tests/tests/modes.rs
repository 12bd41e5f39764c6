//! One walk in every mode: XDP off, native and generic; Docker's own rules there or not; offloads on and off; small MTU.

use tests::sockets::{Talk, ask_when_up, is_silence};
use tests::{Builder, CLIENT, HOST, Image, Lab};

/// Publication, big transfers both ways, UDP of all sizes, a link, and the gates.
fn walk(builder: Builder, xdp: &str) {
    walk_with(builder, &["--xdp", xdp]);
}

fn walk_with(builder: Builder, arguments: &[&str]) {
    let lab = builder.images(&[Image::Echo]).build();
    let _up = lab.up(arguments);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let recipient = lab.run("recipient", &["--link", "server", "echo"]);
    let third = lab.run("third", &["echo"]);

    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    assert_eq!(talk.seen(), talk.ours());
    lab.assert_carried(|| talk.transfer(5_000_000, |_| ()).expect("a transfer"));
    // One byte, an odd number, as much as fits (with the headers) into the smallest MTU here.
    for size in [1, 777, 1300] {
        let (seen, port) = ask_when_up(lab.client(), (HOST, 8000), &vec![b'x'; size]);
        assert_eq!(seen, (CLIENT, port).into());
    }
    let mut linked = Talk::when_up(&recipient.ns(), server.at(7));
    lab.assert_carried(|| linked.transfer(5_000_000, |_| ()).expect("a transfer over a link"));

    let error = lab.assert_dropped("not_linked", || third.ns().tcp(server.at(7))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    let error = lab.assert_dropped("not_published", || lab.client().tcp(server.at(7))).expect_err("not published");
    assert!(is_silence(&error), "{error}");
    talk.say(b"still here").expect("an echo");
}

#[test]
fn xdp_off() {
    walk(Lab::builder("xdp off"), "off");
}

#[test]
fn xdp_off_without_dockers_rules() {
    walk(Lab::builder("xdp off, no iptables").without_iptables(), "off");
}

#[test]
fn xdp_off_without_offloads() {
    walk(Lab::builder("xdp off, no offloads").without_client_offloads(), "off");
}

#[test]
fn xdp_auto_on_a_small_mtu() {
    walk(Lab::builder("xdp auto, MTU 1400").mtu(1400), "auto");
}

#[test]
fn clsact_as_on_kernels_without_tcx() {
    walk_with(Lab::builder("clsact"), &["--clsact"]);
}

#[test]
fn xdp_native() {
    walk(Lab::builder("xdp native").without_client_offloads(), "native");
}

#[test]
fn xdp_native_without_dockers_rules() {
    walk(Lab::builder("xdp native, no iptables").without_client_offloads().without_iptables(), "native");
}

#[test]
fn xdp_generic() {
    walk(Lab::builder("xdp generic").without_client_offloads(), "generic");
}

#[test]
fn with_docker_itself_closed_between_containers() {
    walk(Lab::builder("icc=false").without_icc(), "off");
}
