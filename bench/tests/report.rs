//! The benchmark itself: it measures, and writes a report. What it finds is nobody's to assert.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_writes_its_report_in_all_its_forms() {
    let out = std::env::temp_dir().join(format!("runtime-bench-{}", std::process::id()));
    let words = ["--quick", "--only", "kernel", "--out"];
    let done = Command::new(env!("CARGO_BIN_EXE_bench")).args(words).arg(&out).output().expect("the benchmark");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    let (json, page, summary) = (read("results.json"), read("index.html"), read("summary.md"));
    let _ = fs::remove_dir_all(&out);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let report: Value = serde_json::from_str(&json).expect("JSON");
    let tables = report["tables"].as_array().expect("tables");
    let figures = tables.iter().filter(|t| t["title"].as_str().is_some_and(|title| title.contains("ns a packet")));
    let figures: Vec<&Value> = figures.flat_map(|t| t["figures"].as_array().expect("figures")).collect();
    for case in figures.iter().filter(|f| f["program"] != "uplink_xdp") {
        assert!(
            case["median_ns"].as_f64() >= case["best_ns"].as_f64() && case["best_ns"].as_f64() > Some(1.0),
            "{case}"
        );
    }
    let programs: BTreeSet<&str> = figures.iter().filter_map(|f| f["program"].as_str()).collect();
    assert_eq!(programs, BTreeSet::from(["from_endpoint", "to_endpoint", "uplink_ingress", "uplink_xdp"]));
    let scales: BTreeSet<u64> = figures.iter().filter_map(|f| f["scale"].as_u64()).collect();
    assert!(scales.contains(&1) && scales.contains(&65_535) && scales.contains(&100_000), "{scales:?}");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{}", &page[..page.len().min(200)]);
    assert!(summary.contains("ns a packet by publications"), "{summary}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let done = Command::new(env!("CARGO_BIN_EXE_bench")).args(["--only", "speed"]).output().expect("the benchmark");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("--only \"speed\": none of traffic, kernel"), "{said}");
}
