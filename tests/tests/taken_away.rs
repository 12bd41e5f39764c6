//! Pins, programs and the file system that holds them, taken away by hand under a running daemon: told of and put back within
//! seconds, and the next daemon finds all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::sockets::Talk;
use tests::{HOST, Image, Lab, entries, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A BPF file system of the lab's own.
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount(lab: &Lab) -> Self {
        let at = lab.pins().to_owned();
        fs::create_dir_all(&at).expect("a folder");
        // What is below it is another, as at a mount point of the user's own.
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a file system");
        mount(Some("bpf"), &at, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a BPF file system");
        Bpffs(at)
    }

    fn unmount(&self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("unmounted");
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        while umount2(&self.0, MntFlags::MNT_DETACH).is_ok() {}
    }
}

/// All but the one that comes when the first port is relayed, some moments after its container.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with("relay_lookup"));
    names.sort();
    names
}

fn map_id(lab: &Lab, pin: &Path) -> String {
    let shown = lab.host().run(["bpftool", "map", "show", "pinned", &pin.display().to_string()]);
    shown.stdout.split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn what_is_taken_away_is_put_back_within_seconds() {
    let lab = Lab::builder("taken away").images(&[Image::Echo]).build();
    let bpffs = Bpffs::mount(&lab);
    let daemon = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    let stranger = lab.run("stranger", &["echo"]);
    let mut held = Talk::when_up(lab.client(), (HOST, 8000));
    let (links, maps) = (lab.pins().join("links"), lab.pins().join("maps"));
    let all = (names(&links), names(&maps));
    let flows = map_id(&lab, &maps.join("FLOWS"));
    let whole = |after: &str| {
        let is_whole = || (names(&links), names(&maps)) == all;
        if wait_for(SOON, || is_whole().then_some(())).is_none() {
            panic!(
                "{after}: there are {:?} and {:?}, not {all:?}; {}",
                names(&links),
                names(&maps),
                lab.status()["problems"]
            );
        }
    };
    let works = |held: &mut Talk, what: &str| {
        held.say(what.as_bytes()).expect("an echo on what was open before");
        lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a talk"));
        let error = lab.assert_dropped("not_linked", || stranger.ns().tcp(server.at(7))).expect_err("no link");
        assert!(tests::sockets::is_silence(&error), "{error}");
    };
    let told = |what: &str| {
        wait_until(&format!("status tells that {what} was gone"), SOON, || {
            let problems = lab.status()["problems"].to_string();
            problems.lines().any(|_| problems.contains(what) && problems.contains("put back"))
        });
    };

    // Each pin by itself would take long: a map, a gate, an uplink and a hook of the host's own sockets stand for them.
    let gate = all.0.iter().find(|n| n.starts_with("to_endpoint-")).expect("a gate").clone();
    let uplink = all.0.iter().find(|n| n.starts_with("uplink_ingress-")).expect("an uplink").clone();
    for pin in [links.join(&gate), links.join(&uplink), links.join("host_connect4-cgroup"), maps.join("FLOWS")] {
        fs::remove_file(&pin).expect("the pin can be removed");
    }
    let began = Instant::now();
    whole("pins were removed");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    told("maps/FLOWS was gone");
    told("to_endpoint is not attached to");
    told("host_connect4");
    assert_eq!(map_id(&lab, &maps.join("FLOWS")), flows, "the map itself, with its flows");
    works(&mut held, "after pins were removed");

    for folder in [&links, &maps] {
        fs::remove_dir_all(folder).expect("the folder can be removed");
    }
    whole("the folders were removed");
    works(&mut held, "after the folders were removed");

    bpffs.unmount();
    whole("the file system was unmounted");
    told("the BPF file system at");
    works(&mut held, "after the file system was unmounted");

    // The next daemon finds all of it.
    daemon.kill();
    held.say(b"without a daemon").expect("an echo");
    let _next = lab.up(&[]);
    assert_eq!(map_id(&lab, &maps.join("FLOWS")), flows);
    works(&mut held, "adopted");
    lab.down();
    // What every new one has.
    assert_eq!(names(lab.pins()), ["maps.debug", "progs.debug"]);
}

/// What `bpftool` lists of a map: keys and values as bytes.
fn dump(lab: &Lab, map: &str) -> Vec<serde_json::Value> {
    let pin = lab.pins().join("maps").join(map);
    let text = lab.host().run(["bpftool", "-j", "map", "dump", "pinned", &pin.display().to_string()]).ok();
    serde_json::from_str(&text).expect("JSON")
}

/// Deletes entries of a map, or writes zeros to those that cannot be deleted, as somebody does by hand.
fn take_entries(lab: &Lab, map: &str) {
    let pin = lab.pins().join("maps").join(map).display().to_string();
    let bytes = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().expect("bytes").iter().map(|b| b.as_str().expect("a byte").to_owned()).collect()
    };
    let mut taken = 0;
    for entry in dump(lab, map) {
        let (key, value) = (bytes(&entry["key"]), bytes(&entry["value"]));
        let is_array = ["PORTS", "ADDRESS_BITS"].contains(&map);
        if is_array && value.iter().all(|b| b == "0x00") {
            continue;
        }
        let mut words = vec!["bpftool", "map", if is_array { "update" } else { "delete" }, "pinned", &pin, "key"];
        words.extend(key.iter().map(String::as_str));
        if is_array {
            words.push("value");
            words.extend(value.iter().map(|_| "0"));
        }
        lab.host().run(words).ok();
        taken += 1;
    }
    assert!(taken > 0, "{map} has no entry");
}

#[test]
fn entries_that_are_deleted_by_hand_are_written_anew_within_seconds() {
    let lab = Lab::builder("entries deleted").images(&[Image::Echo]).build();
    let _daemon = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    let recipient = lab.run("recipient", &["--link", "server", "echo"]);
    lab.runtime(["publish", "server", "8001:7", "--allow-from", "192.0.2.0/24", "--max-rate", "1000"]).ok();
    let mut held = Talk::when_up(lab.client(), (HOST, 8001));
    let source = lab.container("server").at(7);
    Talk::when_up(&recipient.ns(), source);
    // Addresses are checked for some moments before they are anybody's.
    let mut before = entries::state(lab.pins()).expect("entries");
    wait_until("the entries settle", SOON, || {
        std::thread::sleep(Duration::from_secs(2));
        let now = entries::state(lab.pins()).expect("entries");
        let same = now == before;
        before = now;
        same
    });
    let maps = [
        "ENDPOINTS",
        "ADDRESSES",
        "PREFIXES",
        "UPLINKS",
        "PUBLICATIONS",
        "FILTERS",
        "LIMITS",
        "LINKS",
        "PORTS",
        "ADDRESS_BITS",
    ];
    for map in maps {
        take_entries(&lab, map);
    }
    let began = Instant::now();
    let whole = || entries::state(lab.pins()).is_ok_and(|now| now == before);
    wait_until("the entries are there again", SOON, whole);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let problems = lab.status()["problems"].to_string();
    for map in maps {
        assert!(problems.contains(&format!("of the map {map} w")), "nothing is told of {map}: {problems}");
    }
    held.say(b"as before").expect("an echo on what was open before");
    lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8001)).expect("a talk"));
    Talk::open(&recipient.ns(), source).expect("a talk").say(b"linked").expect("an echo");
    // The lowest slots are given first. What flows are held to them may have ended meanwhile; new ones begin.
    let rules = lab.pins().join("maps/RULES").display().to_string();
    for slot in 0..8 {
        let words = format!("bpftool map update pinned {rules} key {slot} 0 0 0 value 0 0 0 0 0 0 0 0");
        lab.host().run(words.split(' ')).ok();
    }
    wait_until("the rules are in force again", SOON, whole);
    lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8001)).expect("a talk"));
}
