//! Expectations come from Docker's documentation of `-p`, and from what its command line (28.2) sends for the same text.

use super::*;

/// `address|host ports|container port` of each request, `-` for what is left to choose.
fn parsed(spec: &str) -> Vec<String> {
    let requests = parse_publish(spec).unwrap_or_else(|e| panic!("{spec:?}: {e}"));
    let show = |r: &PublishRequest| {
        let address = r.host_addr.map_or("-".to_owned(), |a| a.to_string());
        let ports = r.host_ports.as_ref().map_or("-".to_owned(), |p| format!("{}..{}", p.start(), p.end()));
        format!("{address}|{ports}|{}", r.container_port)
    };
    requests.iter().map(show).collect()
}

fn refused(spec: &str) -> String {
    match parse_publish(spec) {
        Ok(r) => panic!("{spec:?} was taken as {r:?}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn single_ports() {
    for (spec, want) in [
        ("80", "-|-|80/tcp"),
        ("80/udp", "-|-|80/udp"),
        ("8080:80", "-|8080..8080|80/tcp"),
        ("8080:80/tcp", "-|8080..8080|80/tcp"),
        ("8080:80/UDP", "-|8080..8080|80/udp"),
        ("8080:80/Sctp", "-|8080..8080|80/sctp"),
        ("8080:80/", "-|8080..8080|80/tcp"),
        ("127.0.0.1:8080:80", "127.0.0.1|8080..8080|80/tcp"),
        ("0.0.0.0:8080:80", "0.0.0.0|8080..8080|80/tcp"),
        ("127.0.0.1::80", "127.0.0.1|-|80/tcp"),
        ("127.0.0.1:0:80", "127.0.0.1|-|80/tcp"),
        ("0:80", "-|-|80/tcp"),
        (":80", "-|-|80/tcp"),
        ("::80", "-|-|80/tcp"),
        ("65535:65535", "-|65535..65535|65535/tcp"),
        ("1:1", "-|1..1|1/tcp"),
        ("0080:080", "-|80..80|80/tcp"),
    ] {
        assert_eq!(parsed(spec), [want], "{spec}");
    }
}

#[test]
fn ipv6_with_and_without_brackets() {
    for (spec, want) in [
        ("[::1]:8080:80", "::1|8080..8080|80/tcp"),
        ("[::]::80", "::|-|80/tcp"),
        ("[2001:db8::1]:53:53/udp", "2001:db8::1|53..53|53/udp"),
        ("::1:8080:80", "::1|8080..8080|80/tcp"),
        ("2001:db8::68::333", "2001:db8::68|-|333/tcp"),
        ("::::80", "::|-|80/tcp"),
        ("[192.0.2.1]:80:80", "192.0.2.1|80..80|80/tcp"),
        ("[::ffff:192.0.2.1]:80:80", "192.0.2.1|80..80|80/tcp"),
    ] {
        assert_eq!(parsed(spec), [want], "{spec}");
    }
}

#[test]
fn ranges() {
    assert_eq!(parsed("8000-8002:80-82"), ["-|8000..8000|80/tcp", "-|8001..8001|81/tcp", "-|8002..8002|82/tcp"]);
    assert_eq!(parsed("80-82"), ["-|-|80/tcp", "-|-|81/tcp", "-|-|82/tcp"]);
    assert_eq!(parsed("8000-9000:80"), ["-|8000..9000|80/tcp"]);
    assert_eq!(parsed("[::1]:8000-8001:80-81/udp"), ["::1|8000..8000|80/udp", "::1|8001..8001|81/udp"]);
    assert_eq!(parsed("127.0.0.1::80-81"), ["127.0.0.1|-|80/tcp", "127.0.0.1|-|81/tcp"]);
    assert_eq!(parsed("80-80:90-90"), ["-|80..80|90/tcp"]);
    assert_eq!(parsed("1-65535:1-65535").len(), 65535);
}

#[test]
fn the_long_form() {
    assert_eq!(parsed("target=80"), ["-|-|80/tcp"]);
    assert_eq!(parsed("published=8080,target=80"), ["-|8080..8080|80/tcp"]);
    assert_eq!(parsed("target=53,published=5353,protocol=udp,mode=host"), ["-|5353..5353|53/udp"]);
    assert_eq!(parsed("mode=ingress,published=0,target=80,protocol=tcp"), ["-|-|80/tcp"]);
    assert_eq!(parsed("published=8000-8001,target=80-81"), ["-|8000..8000|80/tcp", "-|8001..8001|81/tcp"]);
    assert_eq!(parsed("published=127.0.0.1:8080,target=80"), ["127.0.0.1|8080..8080|80/tcp"]);
}

#[test]
fn refusals_quote_the_text() {
    for (spec, what) in [
        ("80800:80", "host port 80800 is not 1 to 65535"),
        ("80:65536", "container port 65536 is not 1 to 65535"),
        ("80:0", "container port 0 is not 1 to 65535"),
        ("0", "container port 0 is not 1 to 65535"),
        ("a:b", r#"container port "b" is not 1 to 65535"#),
        ("a:80", r#"host port "a" is not 1 to 65535"#),
        ("80:-1", r#"container port "" is not 1 to 65535"#),
        ("+80", r#"container port "+80" is not 1 to 65535"#),
        (" 80", r#"container port " 80" is not 1 to 65535"#),
        ("80-", r#"container port "" is not 1 to 65535"#),
        ("80-82-90", r#"container port "82-90" is not 1 to 65535"#),
        ("0:80-81", "host port 0 is not 1 to 65535"),
        ("0-2:80-82", "host port 0 is not 1 to 65535"),
        ("65535-65536:80", "host port 65536 is not 1 to 65535"),
        ("192.168.1.100", r#"container port "192.168.1.100" is not 1 to 65535"#),
        ("99999999999999999999:80", "host port 99999999999999999999 is not 1 to 65535"),
        ("5-3:80", "host port range 5-3 ends before it starts"),
        ("82-80", "container port range 82-80 ends before it starts"),
        ("8000-8002:80-81", "container ports 80-81 and host ports 8000-8002 differ in number"),
        ("8000:80-81/udp", "container ports 80-81 and host ports 8000 differ in number"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("", "no port specified: <empty>"),
        ("/tcp", "no port specified: <empty>"),
        ("127.0.0.1:80:/udp", "no port specified: 127.0.0.1:80:<empty>"),
        ("80/foo", r#"protocol "foo" is not tcp, udp or sctp"#),
        ("80/tcp/udp", r#"protocol "tcp/udp" is not tcp, udp or sctp"#),
        ("80/icmp", r#"protocol "icmp" is not tcp, udp or sctp"#),
        ("localhost:80:80", r#""localhost" is not an IP address"#),
        ("localhost:8000-8001:80-81", r#""localhost" is not an IP address"#),
        ("01.2.3.4:80:80", r#""01.2.3.4" is not an IP address"#),
        ("256.0.0.1:80:80", r#""256.0.0.1" is not an IP address"#),
        ("[::1:80:80", r#""[::1" is not an IP address"#),
        ("[::1]80:80", r#""[:" is not an IP address"#),
        ("[fe80::1%eth0]:80:80", r#""[fe80::1%eth0]" is not an IP address"#),
        ("published=80", "no port specified: target=<empty>"),
        ("target=80,mode=swarm", r#"mode "swarm" is not host or ingress"#),
        ("target=80,target=81", r#"field "target" is given twice"#),
        ("target=80,foo=1", r#"field "foo=1" is not one of target="#),
        ("target=80,udp", r#"field "udp" is not one of target="#),
        ("target=80,protocol=icmp", r#"protocol "icmp" is not"#),
        ("target=80/udp", r#"container port "80/udp" is not"#),
        ("target=80:81", r#"container port "80:81" is not"#),
    ] {
        let line = refused(spec);
        let start = format!("invalid --publish {spec:?}: {what}");
        assert!(line.starts_with(&start), "{spec:?} gave {line:?}, wanted {start:?}");
    }
}

#[test]
fn a_refusal_is_one_line() {
    assert_eq!(refused("80\n81:80"), r#"invalid --publish "80\n81:80": host port "80\n81" is not 1 to 65535"#);
}

#[test]
fn shown_as_it_can_be_typed() {
    for (spec, want) in [
        ("80", "80/tcp"),
        ("8080:80/UDP", "8080:80/udp"),
        ("127.0.0.1::80", "127.0.0.1::80/tcp"),
        ("::1:8080:80", "[::1]:8080:80/tcp"),
        ("8000-9000:80", "8000-9000:80/tcp"),
    ] {
        let shown = parse_publish(spec).unwrap()[0].to_string();
        assert_eq!(shown, want);
        assert_eq!(parse_publish(&shown).unwrap(), parse_publish(spec).unwrap());
    }
}

#[test]
fn expose() {
    let ports = |spec| parse_expose(spec).unwrap().iter().map(Port::to_string).collect::<Vec<_>>();
    assert_eq!(ports("80"), ["80/tcp"]);
    assert_eq!(ports("80/udp"), ["80/udp"]);
    assert_eq!(ports("80/UDP"), ["80/udp"]);
    assert_eq!(ports("7000-7002/tcp"), ["7000/tcp", "7001/tcp", "7002/tcp"]);
    for (spec, what) in [
        ("80:80", "it takes container ports alone"),
        ("70000", "container port 70000 is not 1 to 65535"),
        ("0", "container port 0 is not 1 to 65535"),
        ("5-3", "container port range 5-3 ends before it starts"),
        ("", "no port specified: <empty>"),
        ("/tcp", "no port specified: <empty>"),
        ("80/foo", r#"protocol "foo" is not"#),
    ] {
        let line = parse_expose(spec).unwrap_err().to_string();
        assert!(line.starts_with(&format!("invalid --expose {spec:?}: {what}")), "{line}");
    }
}

#[test]
fn duplicates_within_one_command() {
    let duplicate = |specs: &[&str]| {
        let requests: Vec<_> = specs.iter().flat_map(|s| parse_publish(s).unwrap()).collect();
        first_duplicate(&requests).map(PublishRequest::to_string)
    };
    assert_eq!(duplicate(&["8080:80", "8080:81"]).as_deref(), Some("8080:81/tcp"));
    assert_eq!(duplicate(&["8000-8002:80-82", "8001:90"]).as_deref(), Some("8001:90/tcp"));
    assert_eq!(duplicate(&["8080:80", "0.0.0.0:8080:80"]).as_deref(), Some("0.0.0.0:8080:80/tcp"));
    assert_eq!(duplicate(&["[::]:8080:80", "8080:80"]).as_deref(), Some("8080:80/tcp"));
    assert_eq!(duplicate(&["8080:80", "8080:80/udp"]), None);
    assert_eq!(duplicate(&["127.0.0.1:8080:80", "127.0.0.2:8080:80"]), None);
    assert_eq!(duplicate(&["0.0.0.0:8080:80", "[::]:8080:80"]), None);
    assert_eq!(duplicate(&["8080:80", "8081:80"]), None);
    assert_eq!(duplicate(&["80", "80", "8000-9000:80", "8000-9000:81"]), None);
}
