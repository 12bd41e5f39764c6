//! The walk of Docker's linking story: a source `db`, a recipient `web`, and everybody else shut out.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::sockets::{Talk, http_get, is_silence, pings};
use tests::{Container, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// `db` and `web` as in the story, and a third container that nobody linked.
fn story(lab: &Lab) -> (Container, Container, Container) {
    let db = lab.run("db", &["postgres"]);
    let web = lab.run("web", &["-P", "--link", "db:webdb", "webapp"]);
    let third = lab.start("third", &["webapp"]);
    wait_until("PostgreSQL answers web", SOON, || query(&web, "webdb").is_some());
    (db, web, third)
}

fn lab(title: &str) -> Lab {
    Lab::builder(title).images(&[Image::Postgres, Image::Webapp]).build()
}

/// What PostgreSQL answers to a small sum asked from inside a container.
fn query(from: &Container, host: &str) -> Option<String> {
    let done = from.exec(["timeout", "2", "psql", "-h", host, "-U", "postgres", "-tAc", "select 6 * 7"]);
    done.success().then(|| done.ok())
}

/// The environment that a container's first process was given.
fn environment(container: &Container) -> BTreeMap<String, String> {
    let bytes = std::fs::read(format!("/proc/{}/environ", container.pid())).expect("its environment");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split('\0').filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn hosts(container: &Container) -> String {
    container.exec(["cat", "/etc/hosts"]).ok()
}

#[test]
fn the_recipient_reaches_its_source_and_nobody_else_does() {
    let lab = lab("the linking story");
    let _up = lab.up(&[]);
    let (db, web, third) = story(&lab);

    assert_eq!(lab.assert_carried(|| query(&web, "webdb")).as_deref(), Some("42"));
    assert!(web.exec(["ping", "-c", "1", "-W", "1", "webdb"]).success());
    let port = lab.runtime(["port", "web", "5000"]).ok();
    let port = port.lines().next().and_then(|l| l.rsplit(':').next()?.parse().ok()).expect("a port of -P");
    assert_eq!(http_get(lab.client(), (HOST, port)).expect("the page"), "webapp");
    assert_eq!(lab.runtime(["inspect", "-f", "{{ .HostConfig.Links }}", "web"]).ok(), "[/db:/web/webdb]");

    let error = lab.assert_dropped("not_linked", || third.ns().tcp(db.at(5432))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    assert!(!lab.assert_dropped("not_linked", || pings(&third.ns(), db.ip())));
    // Nothing the other way, whatever stands: the source is no recipient.
    let error = lab.assert_dropped("not_linked", || db.ns().tcp(web.at(5000))).expect_err("no link back");
    assert!(is_silence(&error), "{error}");
    let error = lab.assert_dropped("not_published", || lab.client().tcp(db.at(5432))).expect_err("not published");
    assert!(is_silence(&error), "{error}");
    assert!(!lab.assert_dropped("not_published", || pings(lab.client(), db.ip())));
    // The host reaches every container.
    assert!(pings(lab.host(), db.ip()));
    assert!(lab.host().tcp(db.at(5432)).is_ok());
}

#[test]
fn a_link_opens_no_port_that_the_source_does_not_expose() {
    let lab = Lab::builder("exposed ports").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["echo", "peer", "tcp:0.0.0.0:7", "tcp:0.0.0.0:8", "udp:0.0.0.0:8"]);
    let recipient = lab.run("recipient", &["--link", "source", "echo"]);
    Talk::when_up(&recipient.ns(), source.at(7)).say(b"exposed").expect("an echo");
    let error = lab.assert_dropped("not_linked", || recipient.ns().tcp(source.at(8))).expect_err("not exposed");
    assert!(is_silence(&error), "{error}");
    let asked = lab.assert_dropped("not_linked", || tests::sockets::ask_once(&recipient.ns(), source.at(8), b"?"));
    assert!(asked.is_err());
}

#[test]
fn the_environment_of_a_recipient_is_dockers() {
    let lab = lab("link environment");
    let _up = lab.up(&[]);
    let db = lab.run("db", &["-e", "SECRET=a b=c", "-e", "HOME=/elsewhere", "--expose", "5433-5434", "postgres"]);
    let web = lab.run("web", &["--link", "db:web-db", "-e", "WEB_DB_ENV_SECRET=mine", "webapp"]);
    let ip = db.ip();
    let url = |port: u16| format!("tcp://{ip}:{port}");
    let expected = [
        ("WEB_DB_NAME", "/web/web-db".to_owned()),
        ("WEB_DB_PORT", url(5432)),
        ("WEB_DB_PORT_5432_TCP", url(5432)),
        ("WEB_DB_PORT_5432_TCP_ADDR", ip.to_string()),
        ("WEB_DB_PORT_5432_TCP_PORT", "5432".to_owned()),
        ("WEB_DB_PORT_5432_TCP_PROTO", "tcp".to_owned()),
        ("WEB_DB_PORT_5432_TCP_START", url(5432)),
        // A run of three ports or more has a start and an end.
        ("WEB_DB_PORT_5432_TCP_END", url(5434)),
        ("WEB_DB_PORT_5432_TCP_PORT_START", "5432".to_owned()),
        ("WEB_DB_PORT_5432_TCP_PORT_END", "5434".to_owned()),
        ("WEB_DB_PORT_5433_TCP", url(5433)),
        ("WEB_DB_PORT_5433_TCP_ADDR", ip.to_string()),
        ("WEB_DB_PORT_5433_TCP_PORT", "5433".to_owned()),
        ("WEB_DB_PORT_5433_TCP_PROTO", "tcp".to_owned()),
        ("WEB_DB_PORT_5434_TCP", url(5434)),
        ("WEB_DB_PORT_5434_TCP_ADDR", ip.to_string()),
        ("WEB_DB_PORT_5434_TCP_PORT", "5434".to_owned()),
        ("WEB_DB_PORT_5434_TCP_PROTO", "tcp".to_owned()),
        ("WEB_DB_ENV_PG_VERSION", "9.3".to_owned()),
        // The container's own variables win.
        ("WEB_DB_ENV_SECRET", "mine".to_owned()),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut found = environment(&web);
    found.retain(|k, _| k.starts_with("WEB_DB_"));
    assert_eq!(found, expected);
}

#[test]
fn the_hosts_file_names_the_source_by_alias_host_name_and_name() {
    let lab = lab("link hosts");
    let _up = lab.up(&[]);
    let db = lab.run("db", &["-h", "database", "postgres"]);
    let web = lab.run("web", &["--link", "db:webdb", "webapp"]);
    let line = format!("{}\twebdb database db", db.ip());
    assert!(hosts(&web).lines().any(|l| l == line), "no line {line:?} in\n{}", hosts(&web));
}

#[test]
fn everything_follows_the_source_to_another_address() {
    let lab = lab("a moving source");
    let _up = lab.up(&[]);
    let (db, web, third) = story(&lab);
    let before = db.ip();
    lab.move_container(&db);

    wait_until("the hosts file follows", SOON, || hosts(&web).contains(&format!("{}\twebdb", db.ip())));
    assert!(!hosts(&web).contains(&format!("{before}\t")), "the old address stays:\n{}", hosts(&web));
    assert!(web.exec(["ping", "-c", "1", "-W", "1", "webdb"]).success());
    wait_until("PostgreSQL answers", SOON, || query(&web, "webdb").is_some());
    // The old address is the filler's now, and nobody linked that.
    assert!(!lab.assert_dropped("not_linked", || pings(&web.ns(), before)));
    assert!(lab.assert_dropped("not_linked", || third.ns().tcp(db.at(5432))).is_err());
    assert!(lab.assert_dropped("not_published", || lab.client().tcp(db.at(5432))).is_err());
}

#[test]
fn everything_follows_the_recipient_to_another_address() {
    let lab = lab("a moving recipient");
    let _up = lab.up(&[]);
    let (db, web, _) = story(&lab);
    let before = web.ip();
    lab.move_container(&web);
    wait_until("PostgreSQL answers web", SOON, || query(&web, "webdb").is_some());
    // Who has its old address has not its links.
    let filler = lab.container(&format!("filler-{}", before.octets()[3]));
    assert!(lab.assert_dropped("not_linked", || filler.ns().tcp(db.at(5432))).is_err());
}

#[test]
fn links_that_docker_made_are_served_too() {
    let lab = Lab::builder("docker's links").images(&[Image::Postgres, Image::Webapp]).build();
    let db = lab.start("db", &["postgres"]);
    if lab.engine().is_podman() {
        // It makes none: there, a label says so.
        let refused = lab.docker(["run", "-d", "--link", "db:webdb", "webapp"]).fails(125);
        assert!(refused.contains("link is not supported"), "{refused}");
    }
    let link = |alias: &str| match lab.engine().is_podman() {
        true => ["--label".to_owned(), format!("runtime.links=db:{alias}")],
        false => ["--link".to_owned(), format!("db:{alias}")],
    };
    let start = |name: &str, alias: &str| {
        let [flag, link] = link(alias);
        lab.start(name, &[&flag, &link, "webapp"])
    };
    let web = start("web", "webdb");
    let third = lab.start("third", &["webapp"]);
    let _up = lab.up(&[]);
    wait_until("PostgreSQL answers web", SOON, || query(&web, "webdb").is_some());
    assert!(lab.assert_dropped("not_linked", || third.ns().tcp(db.at(5432))).is_err());
    // And one that is started while the daemon runs.
    let later = start("later", "other");
    if lab.engine().is_podman() {
        // It tells of a container after its start.
        wait_until("the container is known", SOON, || hosts(&later).contains("\tother"));
    }
    assert_eq!(query(&later, "other").as_deref(), Some("42"));
}
