//! A host with a thousand containers, without an Engine that would need minutes to start them: processes with network namespaces
//! and interfaces of their own on one bridge, and an API that tells of them as Docker's does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::runtime::beside;
use crate::{Background, Lab, wait_until};

const BRIDGE: &str = "crowd0";
const NETWORK: &str = "c0ffee";
/// Container number n is published at this port and n.
const FIRST_PORT: usize = 20_000;
const SOON: Duration = Duration::from_secs(120);

/// The containers, and the daemon's folders.
pub struct Crowd {
    lab: Lab,
    members: Vec<Child>,
    socket: PathBuf,
    answers: Arc<Answers>,
}

impl Crowd {
    /// `size` containers; every second one is linked to the one before. A bridge takes no more than 1023.
    pub fn make(size: usize) -> Result<Crowd> {
        let lab = Lab::new("a crowd of containers");
        let members = (0..size).map(|_| member()).collect::<Result<Vec<_>>>();
        let socket = lab.dir().join("crowd.sock");
        let members = members?;
        let answers = Arc::new(Answers::of(members.iter().map(Child::id).collect()));
        let crowd = Crowd { lab, members, socket, answers: Arc::clone(&answers) };
        crowd.wire()?;
        let listener = UnixListener::bind(&crowd.socket).context("the crowd's socket")?;
        // It ends with this program; nobody asks once the daemon is gone.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                thread::spawn(move || answers.serve(stream));
            }
        });
        Ok(crowd)
    }

    /// Gives each member its interface on the bridge.
    fn wire(&self) -> Result<()> {
        let own = fs::read_link("/proc/self/ns/net")?;
        wait_until("the members have namespaces", SOON, || {
            self.members.iter().all(|m| fs::read_link(format!("/proc/{}/ns/net", m.id())).is_ok_and(|ns| ns != own))
        });
        let mut batch =
            format!("link add {BRIDGE} type bridge\naddress add 172.30.0.1/16 dev {BRIDGE}\nlink set {BRIDGE} up\n");
        for (n, member) in self.members.iter().enumerate() {
            batch += &format!(
                "link add v{n} type veth peer name eth0 address {} netns {}\nlink set v{n} master {BRIDGE} up\n",
                mac(n),
                member.id()
            );
        }
        let file = self.lab.dir().join("crowd.batch");
        fs::write(&file, batch)?;
        let status = self.lab.host().command("ip").arg("-batch").arg(&file).status()?;
        if !status.success() {
            bail!("ip cannot wire {} containers ({status})", self.members.len());
        }
        Ok(())
    }

    fn words(&self, words: &[&str]) -> Result<Vec<String>> {
        let program = beside("runtime", "cargo build -p runtime")?;
        let folder = |name: &str| self.lab.dir().join(name).display().to_string();
        let mut all = vec![program.display().to_string()];
        all.extend(["--docker-host".to_owned(), format!("unix://{}", self.socket.display())]);
        all.extend(["--run-dir".to_owned(), folder("crowd-run"), "--state-dir".to_owned(), folder("crowd-state")]);
        all.extend(["--bpffs".to_owned(), self.pins().display().to_string()]);
        all.extend(words.iter().map(|w| (*w).to_owned()));
        Ok(all)
    }

    /// Starts a daemon, which begins to serve.
    pub fn spawn(&self) -> Result<Background> {
        let words = self.words(&["up", "--uplink", "eth0"])?;
        Ok(self.lab.host().spawn(&self.lab.dir().join("crowd.log"), words))
    }

    /// Starts a daemon; it, and the seconds until it says that every publication is served.
    pub fn up(&self) -> Result<(Background, f64)> {
        let status = self.words(&["status", "--format", "json"])?;
        let start = Instant::now();
        let mut daemon = self.spawn()?;
        loop {
            let done = self.lab.host().run(&status);
            if done.success() && served(&done.stdout) == self.members.len() {
                return Ok((daemon, start.elapsed().as_secs_f64()));
            }
            if daemon.ended().is_some() || start.elapsed() > SOON {
                bail!("runtime up does not serve a crowd: {}\n{}", done.stderr, daemon.output());
            }
        }
    }

    /// The lab that it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The folder of the daemon's pins.
    pub fn pins(&self) -> PathBuf {
        self.lab.pins().join("crowd")
    }

    /// What the API says from now on of a container: whether it runs, and whether it is on the network.
    pub fn set(&self, n: usize, runs: bool, connected: bool) {
        lock(&self.answers.states)[n] = (runs, connected);
    }

    /// Tells of an event as Docker does: `connect` and `disconnect` are of the network, others of the container.
    pub fn tell(&self, action: &str, n: usize) -> Result<()> {
        let event = match action {
            "connect" | "disconnect" => {
                let attributes = json!({"container": id(n), "name": "bridge", "type": "bridge"});
                json!({"Type": "network", "Action": action, "Actor": {"ID": NETWORK, "Attributes": attributes}})
            }
            _ => json!({"Type": "container", "Action": action, "Actor": {"ID": id(n), "Attributes": {}}}),
        };
        let line = format!("{event}\n");
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        let mut told = lock(&self.answers.listeners);
        // Daemons that have ended hear nothing.
        told.retain_mut(|stream| stream.write_all(chunk.as_bytes()).is_ok());
        if told.is_empty() { bail!("nobody listens to events") } else { Ok(()) }
    }

    /// Waits until so many publications are served.
    pub fn wait_served(&self, count: usize) -> Result<()> {
        let status = self.words(&["status", "--format", "json"])?;
        wait_until(&format!("{count} publications are served"), SOON, || {
            served(&self.lab.host().run(&status).stdout) == count
        });
        Ok(())
    }

    /// What was asked since this was last called: each path with the bytes of its answer.
    pub fn take_questions(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut lock(&self.answers.questions))
    }

    /// Takes the datapath away.
    pub fn down(&self) -> Result<()> {
        self.lab.host().run(self.words(&["down"])?).ok();
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended, which is all that is wanted.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// How many publications are served, by what `runtime status` prints.
fn served(status: &str) -> usize {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let all = status["publications"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|p| p["state"] == "served").count()
}

fn member() -> Result<Child> {
    let mut command = Command::new("unshare");
    command.args(["--net", "busybox", "sleep", "1000000"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().context("cannot run unshare")
}

fn mac(n: usize) -> String {
    format!("02:42:ac:1e:{:02x}:{:02x}", n >> 8, n & 255)
}

fn id(n: usize) -> String {
    format!("{n:064x}")
}

/// What the API knows.
struct Answers {
    pids: Vec<u32>,
    /// Whether each runs, and whether it is on the network.
    states: Mutex<Vec<(bool, bool)>>,
    /// Who listens to events.
    listeners: Mutex<Vec<UnixStream>>,
    /// What was asked, and how many bytes the answers had.
    questions: Mutex<Vec<(String, usize)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    fn of(pids: Vec<u32>) -> Self {
        let states = Mutex::new(vec![(true, true); pids.len()]);
        Answers { pids, states, listeners: Mutex::default(), questions: Mutex::default() }
    }

    fn state(&self, n: usize) -> (bool, bool) {
        lock(&self.states)[n]
    }

    /// Answers one connection's requests until it ends.
    fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line)?;
            }
            let path = path(&target);
            if path == "/events" {
                writer.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                )?;
                lock(&self.listeners).push(writer.try_clone()?);
                continue;
            }
            let (status, body) = match self.answer(&target) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", json!({"message": format!("no such thing: {path}")})),
            };
            let body = body.to_string();
            lock(&self.questions).push((path.to_owned(), body.len()));
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            writer.write_all((head + &body).as_bytes())?;
        }
    }

    fn answer(&self, target: &str) -> Option<Value> {
        match path(target) {
            "/version" => Some(json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})),
            "/containers/json" => {
                let wanted = names(target);
                let is_wanted = |n: &usize| wanted.as_ref().is_none_or(|w| w.contains(&format!("c{n}")));
                Some((0..self.pids.len()).filter(is_wanted).map(|n| self.summary(n)).collect())
            }
            "/networks" => Some(json!([{"Name": "bridge", "Id": NETWORK}])),
            path => {
                if path.strip_prefix("/networks/") == Some(NETWORK) {
                    return Some(self.network());
                }
                let asked = path.strip_prefix("/containers/")?.strip_suffix("/json")?;
                let n = usize::from_str_radix(asked, 16).ok().filter(|n| *n < self.pids.len())?;
                Some(self.container(n))
            }
        }
    }

    fn endpoint(&self, n: usize) -> Value {
        if self.state(n) != (true, true) {
            return json!({"NetworkID": "", "EndpointID": "", "IPAddress": "", "MacAddress": ""});
        }
        json!({"NetworkID": NETWORK, "EndpointID": id(n), "Gateway": "172.30.0.1", "IPAddress": address(n), "IPPrefixLen": 16,
            "MacAddress": mac(n)})
    }

    fn summary(&self, n: usize) -> Value {
        json!({"Id": id(n), "Names": [format!("/c{n}")], "State": "running", "Labels": {},
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": FIRST_PORT + n, "Type": "tcp"}],
            "HostConfig": {"NetworkMode": "default"}, "NetworkSettings": {"Networks": {"bridge": self.endpoint(n)}}})
    }

    fn container(&self, n: usize) -> Value {
        let links = if n % 2 == 1 { json!([format!("/c{}:/c{n}/db", n - 1)]) } else { Value::Null };
        let (runs, _) = self.state(n);
        let binding = json!([{"HostIp": "0.0.0.0", "HostPort": (FIRST_PORT + n).to_string()}]);
        json!({"Id": id(n), "Name": format!("/c{n}"),
            "State": {"Running": runs, "Restarting": false, "Pid": if runs { self.pids[n] } else { 0 }, "StartedAt": "2024-01-01T00:00:00Z"},
            "HostConfig": {"NetworkMode": "default", "Links": links, "PortBindings": {"80/tcp": binding}},
            "Config": {"Hostname": format!("c{n}"), "ExposedPorts": {"80/tcp": {}}, "Env": [], "Labels": {}},
            "NetworkSettings": {"Ports": {"80/tcp": binding}, "Networks": {"bridge": self.endpoint(n)}}})
    }

    fn network(&self) -> Value {
        let members: serde_json::Map<String, Value> = (0..self.pids.len())
            .filter(|n| self.state(*n).1)
            .map(|n| {
                let endpoint = json!({"Name": format!("c{n}"), "EndpointID": id(n), "MacAddress": mac(n),
                    "IPv4Address": format!("{}/16", address(n)), "IPv6Address": ""});
                (id(n), endpoint)
            })
            .collect();
        json!({"Name": "bridge", "Id": NETWORK, "Driver": "bridge", "Internal": false, "Containers": members, "Labels": {},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.30.0.0/16", "Gateway": "172.30.0.1"}]},
            "Options": {"com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.name": BRIDGE,
                "com.docker.network.bridge.enable_ip_masquerade": "true"}})
    }
}

fn address(n: usize) -> String {
    format!("172.30.{}.{}", 1 + n / 250, 1 + n % 250)
}

/// The names of containers that a request's filters ask for; none where it asks for all.
fn names(target: &str) -> Option<Vec<String>> {
    let (_, filters) = target.split_once("filters=")?;
    let filters: Value = serde_json::from_str(&decoded(filters.split('&').next()?)).ok()?;
    // `["..."]`, or `{"...": true}` as older clients have it.
    let patterns = match &filters["name"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(set) => set.keys().cloned().collect::<Vec<_>>(),
        _ => return None,
    };
    Some(patterns.iter().map(|p| p.trim_start_matches("^/?").trim_end_matches('$').to_owned()).collect())
}

/// Without `%XX`.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut found = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => found.push(char::from(byte)),
            None => found.push('%'),
        }
        found.push_str(part.get(2..).unwrap_or_default());
    }
    found
}

/// A request's path without the API's version and the query.
fn path(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    match path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| &rest[at..])) {
        Some(rest) if path[2..].starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_tells_of_its_containers() {
        let answers = Answers::of(vec![11, 12]);
        assert_eq!(answers.answer("/v1.41/containers/json?all=true").expect("a list")[1]["Names"][0], "/c1");
        let inspect = answers.answer(&format!("/containers/{}/json", id(1))).expect("a container");
        assert_eq!((&inspect["State"]["Pid"], &inspect["HostConfig"]["Links"][0]), (&json!(12), &json!("/c0:/c1/db")));
        assert_eq!(answers.answer(&format!("/containers/{}/json", id(2))), None);
        assert_eq!(path("/version"), "/version");
        let some = answers.answer("/containers/json?all=true&filters=%7B%22name%22%3A%5B%22%5E%2F%3Fc1%24%22%5D%7D");
        assert_eq!(some.expect("a list").as_array().map(Vec::len), Some(1));
    }
}
