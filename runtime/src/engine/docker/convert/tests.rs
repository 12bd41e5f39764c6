//! On what Docker Engine 20.10 answered: `web` linked to a source that was renamed from `db` to `db2` on the default
//! bridge, `webc` linked to `dbc` on a network of its own with IPv6, one that was never started, and two without a network of
//! their own.

use super::*;

const WEB: &str = "3127a020b5a50884b9c797fc2c8d857d9f858270228b3ff99f16abf69f098821";
const WEBC: &str = "1840ad6871f3848974df4abcec552a1b32a31c9f3816c3897f2d10a11992a5e6";
const DB: &str = "a3dac9e793c197b4205c0ff3f52218bb65c1bb88e656eba55e8ba57b14a0f3f9";
const DBC: &str = "34be730430ab7159c6338b02ed4ad02d5d65f430b15c1a9e815a86e417fbfb81";
const BRIDGE: &str = "e0b436fbe71505bc44b9915cd7513058b93ce16d49cba3f79dd5ac414e764a27";
const APP: &str = "4afe6ba44848a2ef432aa54db2a05e468dec3901bd557768cd4f639ec61edcb4";

fn listed() -> Vec<ContainerSummary> {
    serde_json::from_str(include_str!("../../fixtures/containers.json")).unwrap()
}

fn names() -> Names {
    let mut names = Names::default();
    names.add_containers(&listed());
    names.add_network("bridge".into(), BRIDGE.into());
    names.add_network("app".into(), APP.into());
    names
}

fn inspected(json: &str) -> Container {
    container(serde_json::from_str(json).unwrap(), &names()).unwrap()
}

fn publication(host: &str, host_port: u16, port: &str) -> Publication {
    Publication { host_addr: host.parse().unwrap(), host_port, container_port: port.parse().unwrap() }
}

fn link(source: &str, alias: &str) -> Link {
    Link { source: source.into(), alias: alias.into() }
}

#[test]
fn a_container_on_the_default_bridge() {
    let web = inspected(include_str!("../../fixtures/container_web.json"));
    assert_eq!((web.id.as_str(), web.name.as_str(), web.hostname.as_str()), (WEB, "web", "webhost"));
    assert!(web.running);
    assert_eq!((web.pid, web.started_at.as_str()), (11890, "2026-11-24T18:46:08.536180394Z"));
    assert_eq!(web.labels.into_iter().collect::<Vec<_>>(), [("tier".to_owned(), "front".to_owned())]);
    assert!(web.env.contains(&"A=b".to_owned()));
    let exposed: Vec<String> = web.exposed.iter().map(Port::to_string).collect();
    assert_eq!(exposed, ["80/tcp", "443/tcp", "9000/tcp", "9001/tcp", "9002/tcp", "53/udp"]);
    assert_eq!(web.links, [link(DB, "webdb")], "the source has been renamed since");
    assert_eq!(web.sandbox.unwrap().to_str(), Some("/var/run/docker/netns/c87a881140c4"));
    assert_eq!(web.hosts_path.unwrap().to_str().unwrap(), format!("/var/lib/docker/containers/{WEB}/hosts"));

    let [endpoint] = &web.endpoints[..] else { panic!("{:?}", web.endpoints) };
    assert_eq!(endpoint.network, BRIDGE);
    assert_eq!(endpoint.id, "53bc571d4a97f4d46bebb04a433b64b9c57ba0a3f5ad806e8b4da4b2105c8033");
    assert_eq!(endpoint.mac, Some([2, 0x42, 0xac, 0x11, 0, 3]));
    assert_eq!((endpoint.ipv4, endpoint.ipv6), (Some([172, 17, 0, 3].into()), None));

    assert_eq!(web.publications.len(), 11);
    for expected in [
        publication("127.0.0.1", 8080, "80/tcp"),
        publication("0.0.0.0", 5353, "53/udp"),
        publication("::", 5353, "53/udp"),
        publication("::", 32768, "9002/tcp"),
    ] {
        assert!(web.publications.contains(&expected), "{expected:?}");
    }
}

#[test]
fn a_container_on_a_network_of_the_users_own() {
    let webc = inspected(include_str!("../../fixtures/container_webc.json"));
    assert_eq!(webc.id, WEBC);
    assert_eq!(webc.links, [link(DBC, "dbc"), link(DBC, "webdb")]);
    assert_eq!(webc.publications, [publication("0.0.0.0", 81, "80/tcp"), publication("::", 81, "80/tcp")]);
    let [endpoint] = &webc.endpoints[..] else { panic!("{:?}", webc.endpoints) };
    assert_eq!(endpoint.network, APP);
    assert_eq!(endpoint.ipv4, Some([10, 99, 0, 3].into()));
    assert_eq!(endpoint.ipv6, Some("fd00:99::3".parse().unwrap()));
}

#[test]
fn what_is_published_without_docker_proxy_on_ipv6_is_not_forgotten() {
    let mut inspect: ContainerInspectResponse =
        serde_json::from_str(include_str!("../../fixtures/container_web.json")).unwrap();
    let host = inspect.host_config.as_mut().unwrap();
    host.publish_all_ports = Some(true);
    let binding = |ip: &str, port: &str| PortBinding { host_ip: Some(ip.into()), host_port: Some(port.into()) };
    let some = |list: &[(&str, &str)]| Some(list.iter().map(|(ip, port)| binding(ip, port)).collect::<Vec<_>>());
    host.port_bindings = Some(HashMap::from([
        ("80/tcp".to_owned(), some(&[("0.0.0.0", "80"), ("", "8080-8089")])),
        ("53/udp".to_owned(), some(&[("::1", "53"), ("2001:db8::1", ""), ("127.0.0.1", "54")])),
        ("7/tcp".to_owned(), some(&[("::", "7")])),
        ("8/tcp".to_owned(), some(&[("", "")])),
    ]));
    // As the Engine has it without docker-proxy.
    inspect.network_settings.as_mut().unwrap().ports = Some(PortMap::from([
        ("80/tcp".to_owned(), some(&[("0.0.0.0", "80"), ("0.0.0.0", "8085")])),
        ("53/udp".to_owned(), some(&[("127.0.0.1", "54")])),
        ("8/tcp".to_owned(), some(&[("0.0.0.0", "32768")])),
        ("9/tcp".to_owned(), some(&[("0.0.0.0", "32769")])),
    ]));
    let web = container(inspect.clone(), &names()).unwrap();
    let expected = [
        publication("::", 7, "7/tcp"),
        publication("::", 8085, "80/tcp"),
        publication("::", 32768, "8/tcp"),
        publication("::", 32769, "9/tcp"),
        publication("::1", 53, "53/udp"),
    ];
    assert_eq!(web.unserved.iter().cloned().collect::<Vec<_>>(), expected);
    assert!(expected.iter().all(|p| web.publications.contains(p)) && web.publications.len() == 10);
    // With an address of IPv6, what is not listed is not wanted.
    let networks = inspect.network_settings.as_mut().unwrap().networks.as_mut().unwrap();
    networks.get_mut("bridge").unwrap().global_ipv6_address = Some("2001:db8::9".into());
    assert_eq!(container(inspect, &names()).unwrap().unserved, BTreeSet::new());
    // And docker-proxy serves what is listed.
    assert_eq!(inspected(include_str!("../../fixtures/container_web.json")).unserved, BTreeSet::new());
}

#[test]
fn a_container_that_never_ran() {
    let stopped = inspected(include_str!("../../fixtures/container_stopped.json"));
    assert!(!stopped.running);
    assert_eq!((stopped.pid, stopped.started_at.as_str(), stopped.sandbox), (0, "", None));
    assert_eq!((stopped.publications, stopped.hosts_path), (vec![], None));
    let exposed: Vec<String> = stopped.exposed.iter().map(Port::to_string).collect();
    assert_eq!(exposed, ["80/tcp", "443/tcp"]);
    let [endpoint] = &stopped.endpoints[..] else { panic!("{:?}", stopped.endpoints) };
    assert_eq!((endpoint.network.as_str(), endpoint.id.as_str()), (BRIDGE, ""), "known by its name alone");
}

#[test]
fn a_stopped_container_is_on_the_network_that_has_the_name_now() {
    let mut inspect: ContainerInspectResponse =
        serde_json::from_str(include_str!("../../fixtures/container_stopped.json")).unwrap();
    let networks = inspect.network_settings.as_mut().unwrap().networks.as_mut().unwrap();
    networks.get_mut("bridge").unwrap().network_id = Some("of an earlier day".into());
    assert_eq!(container(inspect, &names()).unwrap().endpoints[0].network, BRIDGE);
}

#[test]
fn published_ports_are_exposed_even_while_stopped() {
    let mut inspect: ContainerInspectResponse =
        serde_json::from_str(include_str!("../../fixtures/container_stopped.json")).unwrap();
    let bindings = PortMap::from([("7000/udp".to_owned(), None)]);
    inspect.host_config.as_mut().unwrap().port_bindings = Some(bindings);
    let exposed: Vec<String> = container(inspect, &names()).unwrap().exposed.iter().map(Port::to_string).collect();
    assert_eq!(exposed, ["80/tcp", "443/tcp", "7000/udp"]);
}

#[test]
fn containers_without_a_network_of_their_own() {
    let host = inspected(include_str!("../../fixtures/container_hostnet.json"));
    assert_eq!(host.sandbox, None);
    assert!(host.hosts_path.is_some());
    let joined = inspected(include_str!("../../fixtures/container_joined.json"));
    assert_eq!((joined.sandbox, joined.hosts_path), (None, None));
    assert!(joined.endpoints.is_empty());
}

#[test]
fn a_container_waiting_to_be_restarted_does_not_run() {
    let mut inspect: ContainerInspectResponse =
        serde_json::from_str(include_str!("../../fixtures/container_web.json")).unwrap();
    inspect.state.as_mut().unwrap().restarting = Some(true);
    let web = container(inspect, &names()).unwrap();
    assert!(!web.running);
    assert!(web.publications.is_empty());
}

#[test]
fn the_list_alone_tells_addresses_ports_and_links() {
    let listed = listed();
    let by_name = |name: &str| {
        let summary = listed.iter().find(|c| own_name(c) == Some(name)).unwrap();
        container_from_summary(summary, &names()).unwrap()
    };
    let inspected = inspected(include_str!("../../fixtures/container_web.json"));
    let web = by_name("web");
    assert_eq!((&web.id, &web.name, web.running), (&inspected.id, &inspected.name, true));
    assert_eq!(web.links, inspected.links);
    assert_eq!(web.publications, inspected.publications);
    assert_eq!(web.exposed, inspected.exposed);
    assert_eq!(web.endpoints, inspected.endpoints);
    assert_eq!(by_name("db2").links, [], "an alias of its own is no link");
    assert!(!by_name("stopped").running);
}

#[test]
fn one_port_that_cannot_be_read_takes_nothing_else_along() {
    let mut listed = listed();
    let web = listed.iter_mut().find(|c| own_name(c) == Some("web")).unwrap();
    let read = container_from_summary(web, &names()).unwrap();
    web.ports.as_mut().unwrap().iter_mut().find(|p| p.public_port == Some(8080)).unwrap().ip = Some("nowhere".into());
    let damaged = container_from_summary(web, &names()).unwrap();
    assert_eq!(damaged.publications.len(), read.publications.len() - 1);
    assert_eq!(damaged.exposed, read.exposed);
}

#[test]
fn names_are_asked_for_where_they_matter_alone() {
    let needed = |json: &str| {
        let (containers, networks) = names_needed(&serde_json::from_str(json).unwrap());
        (containers.into_iter().collect::<Vec<_>>().join(" "), networks.into_iter().collect::<Vec<_>>().join(" "))
    };
    let pair = |containers: &str, networks: &str| (containers.to_owned(), networks.to_owned());
    assert_eq!(needed(include_str!("../../fixtures/container_web.json")), pair("db2", ""));
    assert_eq!(needed(include_str!("../../fixtures/container_webc.json")), pair("dbc", ""));
    assert_eq!(needed(include_str!("../../fixtures/container_stopped.json")), pair("", "bridge"));
}

#[test]
fn an_empty_host_address_is_every_ipv4_address() {
    let ports = r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"0.0.0.0","HostPort":"8080"},
        {"HostIp":"::","HostPort":""}],"81/tcp":null,"nonsense":[{"HostIp":"","HostPort":"1"}]}"#;
    let ports: PortMap = serde_json::from_str(ports).unwrap();
    assert_eq!(publications(&ports), [publication("0.0.0.0", 8080, "80/tcp")]);
}

#[test]
fn networks() {
    let bridge = network(serde_json::from_str(include_str!("../../fixtures/network_bridge.json")).unwrap()).unwrap();
    assert_eq!((bridge.id.as_str(), bridge.name.as_str(), bridge.driver.as_str()), (BRIDGE, "bridge", "bridge"));
    assert_eq!((bridge.bridge.as_deref(), bridge.is_default_bridge), (Some("docker0"), true));
    assert_eq!(bridge.subnets, ["172.17.0.0/16"]);
    assert_eq!(bridge.endpoints[WEB].ipv4, Some([172, 17, 0, 3].into()));
    assert_eq!(bridge.endpoints[WEB].mac, Some([2, 0x42, 0xac, 0x11, 0, 3]));

    let app = network(serde_json::from_str(include_str!("../../fixtures/network_app.json")).unwrap()).unwrap();
    assert_eq!((app.bridge.as_deref(), app.is_default_bridge), (Some("br-4afe6ba44848"), false));
    assert_eq!(app.labels["runtime.isolate"], "true");
    assert_eq!(app.subnets, ["10.99.0.0/24", "fd00:99::/64"]);
    assert_eq!(app.endpoints[DBC].ipv6, Some("fd00:99::2".parse().unwrap()));
}

#[test]
fn events_that_matter() {
    let parse = |json: &str| event(serde_json::from_str(json).unwrap());
    let connect = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"c","name":"bridge",
        "type":"bridge"}},"scope":"local","time":1795546275,"timeNano":1795546275182188298}"#;
    let expected = Event::Endpoint { network: "n".into(), container: "c".into(), connected: true };
    assert_eq!(parse(connect), Some(expected));
    let disconnect = connect.replace("connect\"", "disconnect\"");
    assert!(matches!(parse(&disconnect), Some(Event::Endpoint { connected: false, .. })));
    let create =
        r#"{"Type":"network","Action":"create","Actor":{"ID":"n","Attributes":{"name":"n1","type":"bridge"}}}"#;
    assert_eq!(parse(create), Some(Event::Network { id: "n".into() }));
    let start = r#"{"status":"start","id":"c","from":"box:1","Type":"container","Action":"start",
        "Actor":{"ID":"c","Attributes":{"image":"box:1","name":"x"}},"scope":"local"}"#;
    for (action, change) in [("start", Change::Updated), ("die", Change::Ended), ("destroy", Change::Removed)] {
        let expected = Event::Container { id: "c".into(), change };
        assert_eq!(parse(&start.replace("\"start\"", &format!("{action:?}"))), Some(expected));
    }
    assert_eq!(parse(&start.replace("\"start\"", "\"exec_start: true \"")), None);
    assert_eq!(parse(&start.replace("\"container\"", "\"image\"")), None);
}
