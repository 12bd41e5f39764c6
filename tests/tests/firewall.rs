//! What the daemon reads of the host's firewall: rules that published traffic passes by are named, and what cannot be read is
//! never taken for no rules.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use tests::{Lab, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// `runtime up` with a folder before all others in which it looks for programs; killed when dropped.
struct Up(Child);

impl Up {
    fn start(lab: &Lab, first: &Path) -> Self {
        let mut command = lab.runtime_command_finding(first, ["up"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let up = Up(lab.host().within(|| command.spawn()).expect("runtime starts"));
        wait_until("it serves", Duration::from_secs(30), || lab.runtime(["status"]).success());
        up
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a program into a folder that crashes as long as there is a file `broken` beside it.
fn fragile(folder: &Path, program: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    let broken = folder.join("broken");
    let text = format!(
        "#!/bin/sh\nif [ -e {} ]; then kill -SEGV $$; fi\nPATH=${{PATH#*:}} exec {program} \"$@\"\n",
        broken.display()
    );
    let file = folder.join(program);
    std::fs::write(&file, text).expect("a program");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
}

fn problems(lab: &Lab) -> Vec<String> {
    let list = lab.status()["problems"].as_array().cloned().unwrap_or_default();
    list.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect()
}

fn masqueraded_by(lab: &Lab) -> String {
    let status = lab.status();
    status["masquerade"]["bridge"].as_str().unwrap_or("nothing is said").to_owned()
}

#[test]
fn a_program_that_crashes_is_told_of_and_does_not_change_who_masquerades() {
    for (program, network) in [("nft", "first"), ("iptables-save", "second")] {
        let lab = Lab::builder("a fragile firewall program").without_iptables().build();
        let folder = lab.dir().join("bin");
        fragile(&folder, program);
        let up = Up::start(&lab, &folder);
        assert_eq!((problems(&lab), masqueraded_by(&lab).as_str()), (Vec::new(), "runtime"));
        std::fs::write(folder.join("broken"), "").expect("a file");
        // With a new network come new rules, which are read.
        lab.docker(["network", "create", network]).ok();
        let crash = format!("{program} crashed (SIGSEGV)");
        let told = |what: &str| problems(&lab).iter().any(|l| l.starts_with(&crash) && l.contains(what));
        wait_until("it is told", SOON, || told("Who masquerades is taken to be as it was"));
        assert!(told("Which rules of the host's firewall"), "{:?}", problems(&lab));
        assert_eq!(masqueraded_by(&lab), "runtime");
        drop(up);
        // Who never knew assumes that rules do it already.
        let _up = Up::start(&lab, &folder);
        assert!(told("are taken to masquerade"), "{:?}", problems(&lab));
        assert_eq!(masqueraded_by(&lab), "host_rules");
        std::fs::remove_file(folder.join("broken")).expect("removed");
        lab.docker(["network", "create", "later"]).ok();
        wait_until("all is well again", SOON, || problems(&lab).is_empty());
        assert_eq!(masqueraded_by(&lab), "runtime");
    }
}

#[test]
fn rules_that_mark_clamp_or_count_are_named() {
    let lab = Lab::new("rules without effect");
    for words in [
        "iptables -t mangle -A PREROUTING -p tcp --dport 8000 -j MARK --set-mark 7",
        "ip6tables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "iptables -t mangle -A FORWARD -d 203.0.113.7",
        "nft add table inet mine",
        "nft add counter inet mine web",
        "nft add chain inet mine passing { type filter hook forward priority 0; }",
        "nft add rule inet mine passing tcp dport 8000 counter name web",
        "nft add rule inet mine passing tcp flags syn tcp option maxseg size set 1300",
    ] {
        lab.host().run(words.split(' ')).ok();
    }
    let _up = lab.up(&[]);
    let problems = problems(&lab);
    for (rule, instead) in [
        (
            "iptables rule \"-t mangle -A PREROUTING -p tcp -m tcp --dport 8000 -j MARK",
            "has no effect on published traffic",
        ),
        ("ip6tables rule \"-t mangle -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS", "path MTU discovery"),
        ("iptables rule \"-t mangle -A FORWARD -d 203.0.113.7/32\"", "\"runtime status\" counts it"),
        ("nft rule \"inet mine passing: tcp dport 8000 counter web\"", "\"runtime status\" counts it"),
        ("nft rule \"inet mine passing: tcp flags syn tcp option maxseg size set 1300\"", "path MTU discovery"),
    ] {
        let line =
            problems.iter().find(|l| l.starts_with(rule)).unwrap_or_else(|| panic!("no line {rule}: {problems:#?}"));
        assert!(line.contains(instead), "{line}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}
