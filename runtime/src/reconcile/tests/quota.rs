//! What one container may have, and that the others keep what they have.

use runtime_common::maps::{FILTER_ALLOW, PUBLICATION_CLOSED};

use super::super::quota::{FILTERS, LIMITS, LINKS, PUBLICATIONS};
use super::*;
use crate::model::filter::Filter;

/// A list of so many sources, of the `nth` sort.
fn sources(nth: usize, count: usize) -> String {
    (0..count).map(|n| format!("10.{nth}.{}.{}", n / 256, n % 256)).collect::<Vec<_>>().join(",")
}

/// Each of these containers publishes one port, and takes these sources.
fn filtered(lists: &[(&str, String)]) -> (Snapshot, Host) {
    let names: Vec<&str> = lists.iter().map(|(name, _)| *name).collect();
    let (mut snapshot, host) = world(&names);
    for (n, (name, list)) in lists.iter().enumerate() {
        let container = snapshot.containers.get_mut(*name).unwrap();
        container.publications = vec![publication("0.0.0.0", 8000 + n as u16, "7/tcp")];
        container.labels.insert("runtime.allow-from".into(), list.clone());
    }
    (snapshot, host)
}

fn plan_of(snapshot: &Snapshot, host: &Host) -> Plan {
    plan(snapshot, host, &Live::default(), &Options::default())
}

/// The host's ports that are open.
fn open_ports(p: &Plan) -> Vec<u16> {
    let open = p.desired.publications().into_iter().filter(|(_, p)| p.flags & PUBLICATION_CLOSED == 0);
    let mut ports: Vec<u16> = open.map(|(key, _)| u16::from_be(key.port)).collect();
    ports.sort();
    ports
}

fn refused(p: &Plan) -> Vec<&str> {
    p.refused.keys().map(String::as_str).collect()
}

#[test]
fn who_names_the_same_sources_shares_one_list() {
    let (snapshot, host) = filtered(&[
        ("a", "192.0.2.0/24,2001:db8::1".into()),
        ("b", "2001:db8::1, 192.0.2.7/24".into()),
        ("c", "192.0.2.0/25".into()),
    ]);
    let p = plan_of(&snapshot, &host);
    let lists: Vec<u64> = p.desired.publications().iter().map(|(_, p)| p.list).collect();
    assert!(lists[0] == lists[1] && lists[0] != lists[2] && !lists.contains(&0), "{lists:?}");
    let held: BTreeMap<_, _> = p.desired.published.iter().flat_map(|p| &p.lists).collect();
    assert_eq!(held.len(), 2);
    let expected = [((v4("192.0.2.0"), 96 + 24), FILTER_ALLOW), ((v4("2001:db8::1"), 128), FILTER_ALLOW)];
    assert_eq!(**held[&lists[0]], BTreeMap::from(expected));
    // The list is one; a rule of their own has each of them.
    let generations: Vec<u64> = p.desired.publications().iter().map(|(_, p)| p.generation).collect();
    assert_ne!(generations[0], generations[1]);
}

#[test]
fn a_filter_longer_than_one_may_be_closes_its_own_ports() {
    let (snapshot, host) = filtered(&[("hog", sources(1, FILTERS.one + 1)), ("other", sources(2, FILTERS.one))]);
    let p = plan_of(&snapshot, &host);
    assert_eq!(open_ports(&p), [8001]);
    let line = p.problems.iter().find(|l| l.contains("hog")).expect("a line");
    assert!(line.contains("closed") && line.contains("8192") && line.contains("shorter prefixes"), "{line}");
}

#[test]
fn a_container_whose_filters_are_too_many_together_is_refused_alone() {
    let (mut snapshot, host) = filtered(&[("hog", sources(0, 1)), ("other", sources(0, 1))]);
    snapshot.containers.get_mut("hog").unwrap().publications.clear();
    let made = |port: u16, list: String| LivePublication {
        container: "hog".into(),
        publication: PublicationRange::of(vec![publication("0.0.0.0", port, "7/tcp")]).remove(0),
        filter: Filter::new(&[list], &[], None).unwrap(),
        created: u64::from(port),
    };
    let half = FILTERS.one / 2;
    let mut live = Live { publications: vec![made(1, sources(1, half)), made(2, sources(2, half))], ..Live::default() };
    let p = plan(&snapshot, &host, &live, &Options::default());
    assert_eq!((open_ports(&p), p.refused.len()), (vec![1, 2, 8001], 0));
    // The same sources again cost nothing; one other does.
    live.publications.push(made(3, sources(1, half)));
    assert!(plan(&snapshot, &host, &live, &Options::default()).refused.is_empty());
    live.publications.push(made(4, sources(3, 1)));
    let p = plan(&snapshot, &host, &live, &Options::default());
    assert_eq!(open_ports(&p), [8001]);
    assert_eq!(refused(&p), ["hog"]);
    assert_eq!(p.problems, [p.refused["hog"].clone()]);
    assert!(p.problems[0].starts_with("container hog is closed: it has 8193 prefixes in filters, of 8192"), "{p:?}");
    // Its interface has its programs, and no entry: nothing goes in or out.
    assert!(p.roles.contains_key(&100) && !p.desired.endpoints.contains_key(&100));
    assert!(p.desired.endpoints.contains_key(&101));
}

#[test]
fn where_all_together_are_too_many_those_stay_that_were_started_first() {
    let names: Vec<String> = (0..=FILTERS.all / FILTERS.one).map(|n| format!("c{n}")).collect();
    let lists: Vec<_> = names.iter().enumerate().map(|(n, name)| (name.as_str(), sources(n, FILTERS.one))).collect();
    let (mut snapshot, host) = filtered(&lists);
    for last in ["c0", "c4"] {
        for container in snapshot.containers.values_mut() {
            container.started_at =
                if container.name == last { "2026-11-24T18:00:01Z" } else { "2026-11-24T18:00:00Z" }.into();
        }
        let p = plan_of(&snapshot, &host);
        assert_eq!(refused(&p), [last]);
        assert_eq!(open_ports(&p).len(), FILTERS.all / FILTERS.one);
        assert!(p.problems[0].contains("end another"), "{}", p.problems[0]);
    }
}

#[test]
fn two_lists_of_one_number_are_not_mixed() {
    let (snapshot, _) = filtered(&[("a", String::new()), ("b", String::new())]);
    let list = |text: &str| std::sync::Arc::new(BTreeMap::from([((v4(text), 128), FILTER_ALLOW)]));
    let (mine, others) = (list("192.0.2.1"), list("192.0.2.2"));
    let wanted = |second| {
        let containers = snapshot.containers.values();
        containers.zip([BTreeMap::from([(7, &mine)]), BTreeMap::from([(7, second)])])
    };
    assert!(super::super::quota::refuse_lists(&FILTERS, wanted(&mine)).is_empty());
    let refused = super::super::quota::refuse_lists(&FILTERS, wanted(&others));
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_container_with_too_many_ports_is_refused_alone() {
    let (mut snapshot, host) = world(&["hog", "other"]);
    snapshot.containers.get_mut("other").unwrap().publications = vec![publication("0.0.0.0", 8000, "7/tcp")];
    let all = |count: usize| {
        (0..count).map(|n| publication(&format!("127.0.0.{}", 1 + n / 60_000), 1 + (n % 60_000) as u16, "7/tcp"))
    };
    let ports = |snapshot: &mut Snapshot, count| {
        snapshot.containers.get_mut("hog").unwrap().publications = all(count).collect();
    };
    ports(&mut snapshot, PUBLICATIONS.one);
    assert!(plan_of(&snapshot, &host).refused.is_empty());
    ports(&mut snapshot, PUBLICATIONS.one + 1);
    let p = plan_of(&snapshot, &host);
    assert_eq!((refused(&p), open_ports(&p)), (vec!["hog"], vec![8000]));
    // With a rate, fewer.
    ports(&mut snapshot, LIMITS.one + 1);
    assert!(plan_of(&snapshot, &host).refused.is_empty());
    snapshot.containers.get_mut("hog").unwrap().labels.insert("runtime.max-rate".into(), "5".into());
    let p = plan_of(&snapshot, &host);
    assert_eq!((refused(&p), open_ports(&p)), (vec!["hog"], vec![8000]));
}

#[test]
fn links_that_open_too_much_open_nothing_and_others_stay() {
    let (mut snapshot, host) = world(&["a", "b", "hog", "web"]);
    let every = |protocol: &str| (1..=u16::MAX).map(|n| format!("{n}/{protocol}").parse().unwrap()).collect::<Vec<_>>();
    snapshot.containers.get_mut("a").unwrap().exposed = every("tcp");
    snapshot.containers.get_mut("b").unwrap().exposed = every("udp");
    snapshot.containers.get_mut("web").unwrap().links = vec![link_to("a", "a")];
    snapshot.containers.get_mut("hog").unwrap().links = vec![link_to("a", "a")];
    assert!(plan_of(&snapshot, &host).closed_links.is_empty(), "all ports of one source fit");
    snapshot.containers.get_mut("hog").unwrap().links.push(link_to("b", "b"));
    let p = plan_of(&snapshot, &host);
    assert_eq!((p.desired.links.len(), p.refused.len()), (LINKS.one, 0));
    assert_eq!(p.problems, [p.closed_links["hog"].clone()]);
    assert!(p.problems[0].contains("container hog") && p.problems[0].contains("--all-ports"), "{}", p.problems[0]);
    // What it says there helps.
    snapshot.containers.get_mut("hog").unwrap().links.clear();
    let link =
        |source: &str| LiveLink { recipient: "hog".into(), link: link_to(source, source), all_ports: true, created: 1 };
    let live = Live { links: vec![link("a"), link("b")], ..Live::default() };
    let p = plan(&snapshot, &host, &live, &Options::default());
    assert_eq!((p.desired.links.len(), p.closed_links.len()), (LINKS.one + 2, 0));
}
