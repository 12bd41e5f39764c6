//! The daemon among others: another on the same pins, an engine that hangs, clients that never ask, and what it may do itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use runtime_api::Ping;
use tests::sockets::Talk;
use tests::traces::files;
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// The words of a `runtime` command of the lab's, with other values of some options.
fn words(lab: &Lab, words: &[&str], others: &[(&str, &Path)]) -> Vec<OsString> {
    let command = lab.runtime_command(words);
    let mut all: Vec<OsString> = vec![command.get_program().to_owned()];
    all.extend(command.get_args().map(ToOwned::to_owned));
    for (option, value) in others {
        let at = all.iter().position(|w| w == option).expect("the option") + 1;
        all[at] = (*value).into();
    }
    all
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused_and_so_is_down_without_the_first() {
    let lab = Lab::builder("two daemons").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    let mut held = Talk::when_up(lab.client(), (HOST, 8000));
    let (run, state, alias) = (lab.dir().join("run2"), lab.dir().join("state2"), lab.dir().join("alias"));
    std::os::unix::fs::symlink(lab.pins(), &alias).expect("a symbolic link");
    let elsewhere: &[(&str, &Path)] = &[("--run-dir", &run), ("--state-dir", &state), ("--bpffs", &alias)];
    for command in ["up", "down"] {
        let told = lab.host().run(words(&lab, &[command], elsewhere)).fails(1);
        let holder = format!("process {} serves by these pins already", up.pid());
        assert!(told.contains(&holder) && told.contains("--bpffs"), "{command}: {told}");
    }
    held.say(b"still served").expect("an echo");
    lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a talk"));
    // Whoever comes after a kill may have another run directory.
    up.kill();
    lab.host().run(words(&lab, &["down"], elsewhere)).ok();
    assert_eq!(files(lab.pins()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_start_tells_what_it_waits_for() {
    let lab = Lab::new("a hung engine");
    let socket = lab.dir().join("hung.sock");
    let _hung = UnixListener::bind(&socket).expect("a socket");
    let address = format!("unix://{}", socket.display());
    let words = words(&lab, &["up"], &[("--docker-host", Path::new(&address))]);
    let daemon = lab.host().spawn(&lab.dir().join("hung.log"), words);
    wait_until("it says so", SOON, || daemon.output().contains("waiting for the engine to answer"));
}

fn connect(lab: &Lab) -> std::io::Result<UnixStream> {
    UnixStream::connect(lab.dir().join("run/runtime.sock"))
}

#[test]
fn clients_that_never_ask_or_never_end_hold_nobody_up() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("room for ten thousand connections");
    let lab = Lab::builder("slow clients").build();
    let up = lab.up(&[]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", up.pid())).expect("a process").count();
    let before = descriptors();

    let idle: Vec<UnixStream> = (0..10_000).map(|_| connect(&lab).expect("a connection")).collect();
    let began = Instant::now();
    assert_eq!(lab.daemon().call(Ping).expect("an answer").pid, up.pid());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(descriptors() < before + 200, "{} descriptors", descriptors());
    // One that dribbles is told, and let go.
    let mut slow = connect(&lab).expect("a connection");
    let mut told = String::new();
    let began = Instant::now();
    while began.elapsed() < SOON && slow.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = slow.read_to_string(&mut told);
    assert!(began.elapsed() < SOON && told.contains("no request came within"), "{:?}: {told}", began.elapsed());
    drop(idle);
    wait_until("their descriptors are given back", SOON, || descriptors() <= before + 4);

    // A line without an end is not kept.
    let mut endless = connect(&lab).expect("a connection");
    let piece = vec![b'x'; 1 << 20];
    let written = (0..1024).take_while(|_| endless.write_all(&piece).is_ok()).count();
    assert!(written < 8, "{written} MiB were taken");
    let status = std::fs::read_to_string(format!("/proc/{}/status", up.pid())).expect("a process");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 300_000, "{peak} kB");

    for garbage in [&b"\xff\xfe\n"[..], b"\n", b"{}\n", b"{\"command\":\"fly\"}\n", b"[[[[[[[[\n"] {
        let mut stream = connect(&lab).expect("a connection");
        stream.write_all(garbage).expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        assert!(line.contains("does not understand") && line.len() < 600, "{garbage:?}: {line}");
    }
    assert_eq!(lab.daemon().call(Ping).expect("an answer").pid, up.pid());
}

/// A set of capabilities as /proc tells it.
fn capabilities(status: &str, name: &str) -> BTreeSet<u8> {
    let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("the line");
    let bits = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number");
    (0..64).filter(|n| bits & 1 << n != 0).collect()
}

#[test]
fn the_daemon_has_the_rights_that_it_needs_and_no_others_and_its_files_are_roots() {
    let lab = Lab::builder("least privilege").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE,
    // CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF: capability.h's numbers.
    let kept = BTreeSet::from([1, 2, 10, 12, 13, 19, 21, 38, 39]);
    let threads = || std::fs::read_dir(format!("/proc/{}/task", up.pid())).expect("a process").flatten();
    let confined = || {
        for thread in threads() {
            let Ok(status) = std::fs::read_to_string(thread.path().join("status")) else { continue };
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(capabilities(&status, set), kept, "{set} of {status}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert!(capabilities(&status, set).is_empty(), "{set} of {status}");
            }
            for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
                assert!(status.contains(line), "no {line:?} in {status}");
            }
        }
    };
    confined();
    // What it is there for, it can do: a port under 1024 among it.
    lab.run("source", &["--expose", "7", "echo"]);
    let recipient = lab.run("recipient", &["busybox", "sleep", "100000"]);
    lab.runtime(["publish", "source", "81:7"]).ok();
    let mut held = Talk::when_up(lab.client(), (HOST, 81));
    lab.runtime(["link", "recipient", "source"]).ok();
    Talk::when_up(&recipient.ns(), lab.container("source").at(7)).say(b"linked").expect("an echo");
    lab.runtime(["unlink", "recipient", "source"]).ok();
    lab.runtime(["unpublish", "source", "81:7"]).ok();
    held.say(b"cut").expect_err("the connection is closed in the container");
    lab.runtime(["publish", "source", "81:7"]).ok();
    confined();
    let problems = lab.status()["problems"].to_string();
    assert!(!problems.contains("ermitted") && !problems.contains("ermission"), "{problems}");

    for path in files(&lab.dir().join("run")).into_iter().chain(files(&lab.dir().join("state"))) {
        let of = std::fs::symlink_metadata(&path).expect("a file");
        let mode = of.permissions().mode() & 0o777;
        let most = if of.file_type().is_socket() { 0o600 } else { 0o640 };
        assert_eq!(mode & !most, 0, "{} is {mode:o}", path.display());
    }
    up.kill();
    let _next = lab.up(&[]);
    Talk::open(lab.client(), (HOST, 81)).expect("a talk").say(b"adopted").expect("an echo");
    lab.down();
}
