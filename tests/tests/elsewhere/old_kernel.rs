//! A kernel that the programs cannot run on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::traces::files;

/// What `up` asks an Engine before it looks at the kernel. A whole Engine takes an emulated machine a minute to start.
const VERSION: &str = r#"{"Version":"28.5.2","ApiVersion":"1.51","MinAPIVersion":"1.24","Components":[{"Name":"Engine","Version":"28.5.2"}]}"#;

/// Says who it is, lists nothing, and never tells of anything that happens.
fn be_an_engine(listener: &UnixListener) {
    let mut kept = Vec::new();
    for stream in listener.incoming().flatten() {
        let mut asked = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let path = asked.next().unwrap_or_default();
        asked.for_each(drop);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        // Who does not wait for the answer needs none.
        if path.contains("/events") {
            let _ = write!(&stream, "{head}Transfer-Encoding: chunked\r\n\r\n");
            kept.push(stream);
            continue;
        }
        let answer = if path.contains("/version") || path.contains("/info") { VERSION } else { "[]" };
        let _ = write!(&stream, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
    }
}

/// Linux 5.10 has no `bpf_ktime_get_coarse_ns`.
#[test]
fn is_refused_in_one_line() {
    let name = format!("runtime-old-kernel-{}", std::process::id());
    let (dir, pins) = (std::env::temp_dir().join(&name), Path::new("/sys/fs/bpf").join(&name));
    for dir in [&dir, &pins] {
        fs::create_dir_all(dir).expect("a folder");
    }
    let socket = dir.join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || be_an_engine(&listener));

    let program = std::env::current_exe().expect("this program").ancestors().nth(2).map(|dir| dir.join("runtime"));
    // On a kernel that is not refused, it touches nothing of the machine's own.
    let mut up = Command::new("timeout");
    up.args(["300", "unshare", "--net"]).arg(program.expect("a folder above"));
    up.arg("--docker-host").arg(format!("unix://{}", socket.display()));
    up.arg("--run-dir").arg(dir.join("run")).arg("--state-dir").arg(dir.join("state")).arg("--bpffs").arg(&pins);
    let done = up.arg("up").output().expect("timeout(1)");
    let message = String::from_utf8_lossy(&done.stderr);
    let left = files(&pins);
    for dir in [&dir, &pins] {
        // Who leaves nothing behind takes its folder for pins along.
        let _ = fs::remove_dir_all(dir);
    }
    assert_eq!(done.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("bpf_ktime_get_coarse_ns") && message.contains("5.11"), "{message}");
    assert_eq!(left, Vec::<PathBuf>::new());
}
