//! On what Podman 5.8.6 answered: `web` on the default network, `webc` on a network of its own with IPv6, one that was never
//! started, one that was initialised and not started, and two without a network of their own.

use super::*;
use crate::engine::docker::convert::{container, names_needed};
use crate::engine::docker::names::Names;
use crate::model::{Container, Link, Publication};

const WEB: &str = "34e29bf24507f631a606c40f991684aff16a2deef7283549b76d92418e76ab8a";
const WEBC: &str = "e929959b8de6d950b3fa31d8b626aca24ec4968ef7f69a00439386562990dcf1";
const PODMAN: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";
const APP: &str = "1a085c3dae3230778f3a076612a28b156baeb81b0783035ef5759dd402e9d3e2";

fn inspect(json: &str) -> ContainerInspectResponse {
    serde_json::from_str(json).unwrap()
}

fn converted(mut inspect: ContainerInspectResponse) -> Container {
    let listed: Vec<Listed> = serde_json::from_str(include_str!("../../fixtures/podman_containers.json")).unwrap();
    let own = listed.into_iter().find(|c| Some(&c.id) == inspect.id.as_ref());
    as_docker(&mut inspect, &own.and_then(|c| c.ports).unwrap_or_default());
    container(inspect, &names()).unwrap()
}

fn names() -> Names {
    let listed = [("web", WEB), ("webc", WEBC)].map(|(name, id)| bollard::models::ContainerSummary {
        id: Some(id.into()),
        names: Some(vec![format!("/{name}")]),
        ..Default::default()
    });
    let mut names = Names::default();
    names.add_containers(&listed);
    names
}

fn publication(host: &str, host_port: u16, port: &str) -> Publication {
    Publication { host_addr: host.parse().unwrap(), host_port, container_port: port.parse().unwrap() }
}

#[test]
fn a_container_on_the_default_network() {
    let web = converted(inspect(include_str!("../../fixtures/podman_container_web.json")));
    assert_eq!((web.id.as_str(), web.name.as_str(), web.running, web.pid), (WEB, "web", true, 18318));
    let [endpoint] = &web.endpoints[..] else { panic!("{:?}", web.endpoints) };
    assert_eq!(endpoint.network, PODMAN);
    assert_eq!(endpoint.id, "netns-0316e78b-ec21-fd37-39fe-1c953660ca58/3e:04:a3:62:ae:fe");
    assert_eq!(endpoint.mac, Some([0x3e, 4, 0xa3, 0x62, 0xae, 0xfe]));
    assert_eq!((endpoint.ipv4, endpoint.ipv6), (Some([10, 88, 0, 2].into()), None));
    // What was asked for on every address is served on IPv4 alone where the network has no IPv6.
    let published = [
        publication("0.0.0.0", 8080, "80/tcp"),
        publication("127.0.0.1", 5353, "53/udp"),
        publication("::", 8080, "80/tcp"),
    ];
    assert_eq!(web.publications, published);
    assert_eq!(web.unserved.into_iter().collect::<Vec<_>>(), published[2..]);
    assert_eq!(web.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["80/tcp", "5432/tcp", "53/udp"]);
    // Not what Podman itself adds.
    assert!(web.env.contains(&"PG_VERSION=9.3".to_owned()));
    assert!(
        !web.env.iter().any(|line| line.starts_with("HOSTNAME=") || line.starts_with("container=")),
        "{:?}",
        web.env
    );
}

#[test]
fn a_container_on_a_network_with_ipv6() {
    let webc = converted(inspect(include_str!("../../fixtures/podman_container_webc.json")));
    let [endpoint] = &webc.endpoints[..] else { panic!("{:?}", webc.endpoints) };
    assert_eq!((endpoint.network.as_str(), endpoint.ipv6), (APP, Some("fd00:99::2".parse().unwrap())));
    let published =
        [publication("0.0.0.0", 81, "80/tcp"), publication("::", 81, "80/tcp"), publication("::1", 82, "80/tcp")];
    assert_eq!((webc.publications.as_slice(), webc.unserved.len()), (&published[..], 0));
    assert!(webc.hosts_path.unwrap().ends_with("userdata/hosts"));
}

#[test]
fn a_container_that_does_not_run() {
    let stopped = converted(inspect(include_str!("../../fixtures/podman_container_stopped.json")));
    assert_eq!((stopped.running, stopped.pid, stopped.publications.len()), (false, 0, 0));
    assert_eq!((stopped.endpoints[0].network.as_str(), stopped.endpoints[0].id.as_str()), (PODMAN, ""));
    assert_eq!(stopped.hosts_path, None);
    assert_eq!(stopped.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["70/tcp", "5432/tcp"]);
}

#[test]
fn a_container_that_waits_for_its_start_is_served_before_it() {
    let mut raw = inspect(include_str!("../../fixtures/podman_container_initialised.json"));
    assert_eq!(raw.state.as_ref().unwrap().running, Some(false));
    let config = raw.config.as_mut().unwrap();
    config.labels = Some(HashMap::from([(super::links::LINKS_LABEL.into(), format!("{WEBC}:webdb bad:a:b web:w"))]));
    let waiting = converted(raw);
    assert!(waiting.running && waiting.pid != 0);
    assert_eq!(waiting.endpoints[0].ipv4, Some([10, 88, 0, 9].into()));
    let link = |source: &str, alias: &str| Link { source: source.into(), alias: alias.into() };
    let mut links = [link(WEBC, "webdb"), link(WEB, "w")];
    links.sort();
    assert_eq!(waiting.links, links, "what cannot be read is none");
}

#[test]
fn names_are_asked_for_with_links_alone() {
    let mut web = inspect(include_str!("../../fixtures/podman_container_web.json"));
    as_docker(&mut web, &[]);
    assert_eq!(names_needed(&web), Default::default());
    web.config.as_mut().unwrap().labels = Some(HashMap::from([(super::links::LINKS_LABEL.into(), "db".into())]));
    as_docker(&mut web, &[]);
    assert_eq!(names_needed(&web), (["db".to_owned()].into(), Default::default()));
}

#[test]
fn what_another_container_or_the_host_has_is_not_this_ones() {
    for json in [
        include_str!("../../fixtures/podman_container_joined.json"),
        include_str!("../../fixtures/podman_container_hostnet.json"),
    ] {
        let c = converted(inspect(json));
        assert!(c.running && c.endpoints.is_empty() && c.publications.is_empty(), "{c:?}");
    }
}

#[test]
fn ranges_and_lists_of_protocols() {
    let mapping = r#"[{"host_ip":"","container_port":70,"host_port":7000,"range":2,"protocol":"tcp,udp"},
        {"host_ip":"::","container_port":80,"host_port":65535,"range":2,"protocol":"tcp"}]"#;
    let mappings: Vec<PortMapping> = serde_json::from_str(mapping).unwrap();
    let (asked, served) = ports(&mappings, false);
    let mut keys: Vec<&String> = asked.keys().collect();
    keys.sort();
    assert_eq!(keys, ["70/tcp", "70/udp", "71/tcp", "71/udp", "80/tcp"]);
    assert_eq!(served["71/udp"].as_ref().unwrap()[0].host_port.as_deref(), Some("7001"));
    assert_eq!(served["80/tcp"].as_ref().map(Vec::len), Some(0), "without IPv6, nobody serves it");
}

#[test]
fn a_list_with_states_of_podmans_own_is_read() {
    for (podman, docker) in [("stopped", "exited"), ("running", "running"), ("configured", "created"), ("unknown", "")]
    {
        let mut listed = serde_json::json!([{"Id": "x", "State": podman}]);
        crate::engine::docker::podman_list::put_states_as_docker(&mut listed);
        let listed: Vec<bollard::models::ContainerSummary> = serde_json::from_value(listed).unwrap();
        assert_eq!(listed[0].state.unwrap().to_string(), docker);
    }
}

#[test]
fn networks() {
    let told: Vec<LibpodNetwork> = serde_json::from_str(include_str!("../../fixtures/podman_networks.json")).unwrap();
    let all: Vec<Network> = told.into_iter().map(|n| network(n, PODMAN)).collect();
    let [app, podman] = &all[..] else { panic!("{all:?}") };
    assert_eq!((app.id.as_str(), app.bridge.as_deref(), app.is_default_bridge), (APP, Some("podman1"), false));
    assert_eq!(app.subnets, ["10.99.0.0/24", "fd00:99::/64"]);
    assert_eq!(app.labels["runtime.isolate"], "true");
    assert_eq!((podman.name.as_str(), podman.bridge.as_deref()), ("podman", Some("podman0")));
    assert!(podman.is_default_bridge && podman.driver == "bridge" && !podman.internal);

    let unmanaged =
        r#"{"name":"lan","id":"l","driver":"bridge","network_interface":"br0","options":{"mode":"unmanaged"}}"#;
    let lan = network(serde_json::from_str(unmanaged).unwrap(), PODMAN);
    assert_eq!((lan.driver.as_str(), lan.bridge), ("bridge, unmanaged", None), "the administrator's own bridge");
}

#[test]
fn events_that_matter() {
    let parse = |text: String| event(serde_json::from_str(&text).unwrap());
    let container = |action: &str| {
        format!(
            r#"{{"status":"{action}","id":"c","from":"docker.io/library/busybox:latest","Type":"container","Action":"{action}",
            "Actor":{{"ID":"c","Attributes":{{"image":"docker.io/library/busybox:latest","name":"web","podId":""}}}},
            "scope":"local","time":1795844621,"timeNano":1795844621792722412}}"#
        )
    };
    let changed = |change| Some(Event::Container { id: "c".into(), change });
    for action in ["create", "init", "start", "die", "died", "restart", "rename", "cleanup"] {
        assert_eq!(parse(container(action)), changed(Change::Updated), "{action}");
    }
    assert_eq!(parse(container("remove")), changed(Change::Removed));
    for action in ["exec", "exec_died", "health_status", "attach", "kill"] {
        assert_eq!(parse(container(action)), None, "{action}");
    }
    let network = |action: &str, id: &str| {
        format!(
            r#"{{"status":"{action}","id":"{id}","Type":"network","Action":"{action}",
            "Actor":{{"ID":"{id}","Attributes":{{"image":"","name":"","network":"app","podId":""}}}},"scope":"local"}}"#
        )
    };
    assert_eq!(parse(network("connect", "c")), changed(Change::Updated), "the actor is the container");
    assert_eq!(parse(network("create", "n")), Some(Event::Network { id: "n".into() }));
}
