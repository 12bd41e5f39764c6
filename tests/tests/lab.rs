//! The lab itself, without the daemon: what scenarios rest on.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::time::Duration;

use tests::frames::{Way, Wire, holds};
use tests::sockets::{Talk, ask_once, http_get, is_silence, pings};
use tests::{CLIENT, CLIENT2, EngineName, HOST, HOST2, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn two_labs_stand_beside_each_other_with_the_same_addresses() {
    let a = Lab::builder("beside a").images(&[Image::Webapp]).build();
    let b = Lab::builder("beside b").images(&[Image::Nginx]).build();
    a.start("web", &["-p", "80:5000", "webapp"]);
    b.start("web", &["-p", "80:80", "nginx"]);

    let page = |lab: &Lab| {
        wait_until("the server answers", SOON, || http_get(lab.client(), (HOST, 80)).is_ok());
        http_get(lab.client(), (HOST, 80)).expect("the page")
    };
    assert_eq!(page(&a), "webapp");
    assert_eq!(page(&b), "nginx");
}

#[test]
fn docker_publishes_through_its_own_rules_and_the_echo_server_tells_who_asks() {
    let lab = Lab::builder("docker publishes").client2().images(&[Image::Echo]).build();
    lab.start("echo", &["-p", "7:7/tcp", "-p", "7:7/udp", "echo"]);
    wait_until("the server answers", SOON, || Talk::open(lab.client(), (HOST, 7)).is_ok());

    let mut talk = Talk::open(lab.client(), (HOST, 7)).expect("a talk");
    talk.say(b"hello").expect("an echo");
    assert_eq!(talk.seen(), talk.ours());
    assert_eq!(talk.seen().ip(), CLIENT);
    talk.transfer(300_000, |_| ()).expect("a transfer");
    assert_eq!(Talk::open(lab.client2(), (HOST, 7)).expect("a talk").seen().ip(), CLIENT2);

    let (seen, port) = ask_once(lab.client(), (HOST, 7), b"hello").expect("an answer");
    assert_eq!(seen, (CLIENT, port).into());
}

#[test]
fn refusals_and_silence_are_told_apart() {
    let lab = Lab::builder("refusals").images(&[Image::Echo]).build();
    let echo = lab.start("echo", &["echo"]);
    wait_until("the server answers the host", SOON, || Talk::open(lab.host(), echo.at(7)).is_ok());

    assert_eq!(lab.client().tcp((HOST, 7)).map(drop).map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
    // Docker's own policy for what it does not publish.
    let error = lab.client().tcp(echo.at(7)).expect_err("no publication");
    assert!(is_silence(&error), "{error}");
    assert!(pings(lab.client(), HOST));
    assert!(!pings(lab.client(), echo.ip()));
}

#[test]
fn postgres_answers_a_query_over_a_docker_link() {
    let lab = Lab::builder("postgres").images(&[Image::Postgres, Image::Webapp]).build();
    lab.start("db", &["postgres"]);
    let web = lab.start("web", &["--link", "db:webdb", "webapp"]);
    let query = || web.exec(["psql", "-h", "webdb", "-U", "postgres", "-tAc", "select 6 * 7"]);
    wait_until("PostgreSQL answers", SOON, || query().success());
    assert_eq!(query().ok(), "42");
    assert_eq!(web.exec(["ping", "-c", "1", "-W", "1", "webdb"]).status.code(), Some(0));
}

#[test]
fn frames_arrive_as_they_were_sent() {
    let lab = Lab::builder("frames").images(&[Image::Echo]).build();
    let (a, b) = (lab.start("one", &["echo"]), lab.start("two", &["echo"]));
    let (sender, receiver) = (Wire::open(&a.ns(), "eth0"), Wire::open(&b.ns(), "eth0"));
    let way = Way { from_mac: [2, 0, 0, 0, 0, 9], to_mac: b.ns().mac("eth0"), from: a.ip(), to: b.ip() };
    sender.send(&way.ethernet(0x88b5, b"an experiment"));
    assert!(receiver.find(SOON, |f| holds(f, b"an experiment") && f[6..12] == way.from_mac).is_some());
    sender.send(&way.udp(4000, 7, b"a question"));
    assert!(receiver.find(SOON, |f| holds(f, b"peer ") && holds(f, b"a question")).is_some());
}

#[test]
fn a_container_can_be_moved_to_another_address() {
    let lab = Lab::builder("moving").images(&[Image::Echo]).build();
    let server = lab.start("server", &["-p", "8000:7", "echo"]);
    let before = server.ip();
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.move_container(&server);
    assert_ne!(server.ip(), before);
    Talk::when_up(lab.client(), (HOST, 8000));
}

#[test]
fn the_engine_is_the_one_that_was_asked_for() {
    let lab = Lab::builder("an unpacked Engine").engine(EngineName::Docker28).build();
    assert_eq!(lab.engine(), EngineName::Docker28);
    let version = lab.docker(["version", "--format", "{{.Client.Version}} {{.Server.Version}}"]).ok();
    assert!(version.split(' ').all(|v| v.starts_with("28.5.")), "{version}");
    // It sees the devices of the lab's host alone, and what it writes is where the tests look for it.
    let devices = run(lab.engine_command("ls").arg("/sys/class/net"));
    assert!(devices.contains("docker0") && devices.contains("eth0"), "{devices}");
    let root = run(lab.engine_command("ls").arg("/"));
    assert!(!root.contains(".old\n") || run(lab.engine_command("ls").arg("/.old")).is_empty(), "{root}");
    assert!(lab.dir().join("data/containers").is_dir());
}

fn run(command: &mut std::process::Command) -> String {
    let output = command.output().expect("a program of the Engine's root");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn wishes_are_granted() {
    let lab = Lab::builder("wishes").second_uplink().without_iptables().without_client_offloads().mtu(1400).build();
    assert!(pings(lab.client2(), HOST2));
    let rules = lab.host().run(["iptables", "-t", "nat", "-S"]).ok();
    assert!(!rules.contains("DOCKER"), "{rules}");
    let features = lab.client().run(["ethtool", "-k", "eth0"]).ok();
    assert!(features.contains("tx-checksumming: off"), "{features}");
    assert!(features.contains("generic-segmentation-offload: off"), "{features}");
    let link = lab.client().run(["ip", "link", "show", "eth0"]).ok();
    assert!(link.contains("mtu 1400"), "{link}");
}

#[test]
fn the_engine_can_go_away_and_come_back() {
    let mut lab = Lab::builder("engine away").engine_arg("--live-restore").build();
    let before = lab.start("sleeper", &["busybox", "sleep", "1000"]).pid();
    lab.stop_engine();
    assert!(!lab.docker(["ps"]).success());
    lab.start_engine();
    assert_eq!(lab.container("sleeper").pid(), before);
}

#[test]
fn nothing_is_left_behind() {
    let lab = Lab::new("nothing left");
    let name = lab.name().to_owned();
    lab.start("sleeper", &["busybox", "sleep", "1000"]);
    // In no network of the lab's: as a container that was being made when its Engine was killed.
    let file = lab.dir().join("stray");
    fs::write(&file, "").expect("a file");
    let mut stray = std::process::Command::new("tail").arg("-f").arg(&file).spawn().expect("a process");
    assert!(!traces(&name).is_empty());
    drop(lab);
    assert!(!stray.wait().expect("it has ended").success());
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn nothing_is_left_behind_by_a_test_that_fails() {
    let (tell, told) = std::sync::mpsc::channel();
    let failure = std::thread::spawn(move || {
        let lab = Lab::new("a failing test");
        tell.send(lab.name().to_owned()).expect("the test listens");
        lab.start("sleeper", &["busybox", "sleep", "1000"]);
        panic!("a failure on purpose");
    });
    let name = told.recv().expect("a lab");
    assert!(failure.join().is_err());
    assert_eq!(traces(&name), Vec::<String>::new());
}

/// What the machine shows under a lab's name: namespaces, mounts, folders, and processes by their command lines.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in ["/run/netns", "/tmp", "/sys/fs/bpf"] {
        let entries = fs::read_dir(place).expect(place).flatten().map(|e| e.path().display().to_string());
        found.extend(entries.filter(|e| e.contains(name)));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    found.extend(mounts.lines().filter(|l| l.contains(name)).map(str::to_owned));
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        // Processes come and go.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            found.push(line);
        }
    }
    found
}

#[test]
fn what_a_killed_run_left_is_swept_by_the_next_lab() {
    let me = std::env::current_exe().expect("this program");
    let mut run = std::process::Command::new(me)
        .args(["--ignored", "--exact", "a_run_to_be_killed", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a run of this program");
    let lines = BufReader::new(run.stdout.take().expect("its output")).lines();
    let told = lines.map_while(Result::ok).find_map(|l| {
        let (name, pid) = l.split_once("lab ")?.1.split_once(' ')?;
        Some((name.to_owned(), Path::new("/proc").join(pid)))
    });
    run.kill().expect("kill -9");
    run.wait().expect("its end");
    let (name, container) = told.expect("the name of its lab");
    assert!(!traces(&name).is_empty() && container.exists());
    drop(Lab::new("the next"));
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!container.exists(), "{} runs on", container.display());
}

#[test]
#[ignore = "runs until it is killed, by another test"]
fn a_run_to_be_killed() {
    let lab = Lab::new("to be killed");
    let sleeper = lab.start("sleeper", &["busybox", "sleep", "1000"]);
    println!("lab {} {}", lab.name(), sleeper.pid());
    std::thread::sleep(Duration::from_secs(60));
}
