//! Every packet fixture, by the host build and the model.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

use packet_cases::compare::{by_host, host_like_model, same};
use packet_cases::fixture::{FILES, all};
use packet_cases::host::IFINDEXES;

#[test]
fn the_host_build_decides_what_fixtures_expect_and_the_model_agrees() {
    let fixtures = all().unwrap();
    let mut wrong = vec![];
    for f in &fixtures {
        let (outcomes, _) = by_host(&f.case, IFINDEXES);
        for (n, (expected, found)) in f.expected.iter().zip(&outcomes).enumerate() {
            if let Err(what) = same(&format!("packet {}", n + 1), "expected", expected, "host build", found) {
                wrong.push(format!("{}\n  {what}", f.title));
                break;
            }
        }
        if let Err(what) = host_like_model(&f.case, &outcomes) {
            wrong.push(format!("{}\n  {what}", f.title));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), fixtures.len(), wrong.join("\n"));
    assert!(fixtures.len() >= 300, "{}", fixtures.len());
}

#[test]
fn every_file_of_fixtures_is_among_them() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(FILES.iter().any(|(file, _)| *file == name), "{} is not in `fixture::FILES`", path.display());
    }
}
