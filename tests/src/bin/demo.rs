//! placeholder
fn main() {
    let t = std::time::Instant::now();
    let lab = tests::Lab::new("x");
    println!("made {:?}", t.elapsed());
    lab.start("sleeper", &["busybox", "sleep", "1000"]);
    println!("started {:?}", t.elapsed());
    drop(lab);
    println!("gone {:?}", t.elapsed());
}
